"""Where runs are compared, each audit is a column: places, and raw values where there are none."""

import re

import pytest

from l2l_jax.report import compare, grids, tradeoff
from l2l_jax.report.collect import collect_all
from l2l_jax.report.metrics import PLAIN_DASH
from launch.drills.strings import foreign
from tests.report.planted import audit, row, skipped
from tests.report.runs import make, phase, without_script

EVIL = "'\"><script>alert(1)</script>"


@pytest.fixture
def compared(tmp_path, monkeypatch):
    """The page of runs with these audits: [(method, seed, audits)]; without the plots."""
    monkeypatch.setattr(tradeoff, "drawing", lambda rows, figure: "")
    monkeypatch.setattr(grids, "combined", lambda strips, needed: None)

    def page(*wanted):
        made = [make(tmp_path / f"run{at}", seed, {"unlearn": phase(method)}, audits=audits)
                for at, (method, seed, audits) in enumerate(wanted)]  # fmt: skip
        return compare.compared(list(collect_all(made)[0].values()), {})

    return page


def rows_of(text):
    """{label: cells} of the table of audits."""
    text = text[text.index("<h2>Does the forgetting hold?</h2>") :]
    body = text[text.index("<tbody>") : text.index("</tbody>")]
    found = (re.findall(r"<td(.*?)</td>", each) for each in body.split("</tr>"))
    return {cells[0].lstrip(">"): cells[1:] for cells in found if cells}


def test_each_audit_is_a_column_and_the_retrained_model_is_first(compared):
    text = compared(
        ("l2l", 0, {"relearn": audit(row(0.9, steps=10)), "probe": audit(row(gap=0.1))}),
        ("max_loss", 0, {"relearn": audit(row(-0.5, steps=10)), "probe": audit(row(0.01))}),
    )
    found = rows_of(text)
    assert list(found) == ["retrained", "original", "l2l", "max_loss"]
    assert found["retrained"] == [
        ">1", ">11.00 <small>[10.50, 11.50]</small>", ">11.00 <small>[10.50, 11.50]</small>"
    ]  # fmt: skip
    assert found["l2l"][1] == ' class="bad">0.90 <small>[0.85, 0.95]</small> <small>hidden</small>'
    assert found["l2l"][2].startswith(">14.25 <small>[13.75, 14.75]</small> <small>raw, no gap<")
    assert found["max_loss"][1].endswith("<small>over-forgotten</small>")
    assert found["max_loss"][2].startswith(">0.01 ")
    head = text[text.index("<th>relearn") :].partition("</tr>")[0]
    assert head.index("PSNR of unseen images; 10 steps (dB)") < head.index("<th>probe<br>")
    assert text.index("Does the forgetting hold?") < text.index("<h2>Figures</h2>")
    assert "Not measured under equal conditions" not in text


def test_seeds_are_one_row_of_places(compared):
    text = compared(*(("l2l", seed, {"relearn": audit(row(place))})
                      for seed, place in enumerate((0.1, 0.4, 0.04))))  # fmt: skip
    cell = rows_of(text)["l2l"][1]
    assert cell.startswith(' class="bad">0.18 <small>± 0.19</small>')
    assert cell.endswith("<small>hidden in 2 of 3</small>")
    assert rows_of(text)["retrained"][:2] == [">3", ">11.00 <small>± 0.00</small>"]


def test_a_seed_without_a_place_is_named(compared):
    text = compared(("l2l", 0, {"a": audit(row(0.01))}), ("l2l", 1, {"a": audit(row(gap=0.1))}))
    assert rows_of(text)["l2l"][1].endswith("<small>1 of 2 seeds</small>")


def test_without_a_retrained_model_raw_values_stand(compared):
    text = compared(("l2l", 0, {"relearn": audit(row())}), ("max_loss", 0, {"b": skipped()}))
    found = rows_of(text)
    assert list(found) == ["original", "l2l", "max_loss"]
    assert found["l2l"][1].endswith("<small>raw</small>")
    assert found["max_loss"][1] == f">{PLAIN_DASH}"


def test_runs_without_audits_have_no_table(compared):
    text = compared(("l2l", 0, {}), ("max_loss", 0, {"b": skipped()}))
    assert "Does the forgetting hold?" not in text


def test_what_is_no_attack_is_not_marked(compared):
    text = compared(("l2l", 0, {"neighbors": audit(row(-3.0), attack=False)}), ("max_loss", 0, {}))
    assert rows_of(text)["l2l"][1] == ">-3.00 <small>[-3.05, -2.95]</small>"


def test_the_table_is_markdown_too(tmp_path):
    """With the same cells; only where it is wanted."""
    runs = [
        make(tmp_path / f"run{seed}", seed, {"unlearn": phase("l2l")},
             audits={"relearn": audit(row(place, steps=10)), "a|b": audit(row(0.02))})
        for seed, place in enumerate((0.9, 0.7))
    ]  # fmt: skip
    records = list(collect_all(runs)[0].values())
    text = compare.markdown(records, ["audits"])
    head, rule, *lines = [line for line in text.splitlines() if line.startswith("|")]
    assert "relearn: PSNR of unseen images; 10 steps (dB)" in head
    assert "a\\|b" in head
    assert rule.count("--:") == 3
    assert [line.split(" | ")[0] for line in lines] == ["| retrained", "| original", "| l2l"]
    assert "| 0.80 ± 0.14 (hidden in 2 of 2) |" in lines[-1]
    assert "PSNR" not in text.partition("Does the forgetting hold?")[0]
    assert "Does the forgetting hold?" in compare.markdown(records, [])
    assert "Does the forgetting hold?" not in compare.markdown(records, ["psnr"])


def test_unequal_arguments_are_named(compared):
    own = audit(row(0.9)) | {"args": {"steps": [0, 40], "draws": 4}}
    other = audit(row(0.9)) | {"args": {"steps": [0, 10], "draws": 4, "lrs": [0.001]}}
    text = compared(("l2l", 0, {EVIL: own}), ("max_loss", 0, {EVIL: other}))
    assert "Not measured under equal conditions: the arguments of the audit &#x27;&quot;" in text
    assert "run0: <code>steps [0, 40], lrs not there</code>" in text
    assert "run1: <code>steps [0, 10], lrs [0.001]</code>" in text
    assert foreign(text) == []
    assert "<script" not in without_script(text)


def test_another_headline_is_another_column(compared):
    text = compared(("l2l", 0, {"relearn": audit(row(0.9, steps=10))}),
                    ("max_loss", 0, {"relearn": audit(row(0.8, steps=40))}))  # fmt: skip
    found = rows_of(text)
    assert found["l2l"][2] == found["max_loss"][1] == f">{PLAIN_DASH}"
