"""What a page says about audits: words that are earned, drawings, tables, and no foreign markup."""

import html
import re

import pytest

from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError
from l2l_jax.report import audit_drawings, audit_words, drawings, page, verdict
from l2l_jax.report.collect import collect
from l2l_jax.report.verdict import State, state
from launch.drills.strings import foreign
from tests.report.planted import audit, curve, measured, row, skipped
from tests.report.runs import cell, change, make, phase, without_script

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture
def page_of(tmp_path, monkeypatch):
    """The page of a run with these audits; without the plots, which take most of the time."""
    monkeypatch.setattr(drawings, "curves", lambda metrics, phase: "")
    monkeypatch.setattr(drawings, "scatter", lambda tsne: "")

    def written(**audits):
        folder = make(tmp_path / "demo", audits=audits)
        return page.write(folder).read_text()

    return written


def card(text):
    """The words of the verdict."""
    found = re.search(r'<div class="card verdict.*?</a></div></div>', text)
    assert found, "there is no verdict"
    return html.unescape(" ".join(re.sub("<[^>]*>", " ", found[0]).split()))


def test_without_audits_the_page_says_that_nothing_was_attacked(tmp_path, page_of):
    text = page_of()
    assert "The result was not attacked, so nobody knows whether the forgetting holds." in text
    assert "<code>python -m l2l_jax.audit --workdir demo</code>" in text
    assert 'id="audits"' not in text
    folder = make(tmp_path / "it's <b>")
    assert "--workdir &#x27;it&#x27;&quot;&#x27;&quot;" in page.write(folder).read_text()


def test_results_of_before_there_were_audits(tmp_path):
    folder = make(tmp_path / "demo")
    results = files.read_json(folder / "results.json")
    del results["audits"]
    files.write_json(folder / "results.json", results)
    assert "The result was not attacked" in page.write(folder).read_text()


def test_a_run_without_an_unlearned_model_has_no_verdict(tmp_path):
    tasks = {"original": {"retain": cell(10.0, 20.0), "forget": cell(12.0, 19.0)}}
    text = page.write(make(tmp_path / "demo", tasks=tasks)).read_text()
    assert "was not attacked" not in text


def test_hidden(page_of):
    text = page_of(relearn=audit(row(0.9)), probe=audit(row(0.4)), member=audit(row(0.02)))
    words = card(text)
    assert words.startswith(
        "Hidden, not forgotten: relearn and probe find what a retrained model does not have."
    )
    assert "Member does not tell the model from a retrained one." in words
    assert "Over-forgotten" not in words
    assert 'class="card verdict bad"' in text


def test_over_forgotten(page_of):
    words = card(page_of(precision=audit(row(-0.6)), member=audit(row(0.02))))
    assert words.startswith("Over-forgotten: precision finds it further from the original")
    assert "Hidden" not in words


def test_both_stand_in_the_verdict(page_of):
    words = card(page_of(precision=audit(row(-0.6)), probe=audit(row(0.5))))
    assert "Hidden, not forgotten: probe finds what" in words
    assert "Over-forgotten: precision finds it" in words


def test_neither(page_of):
    text = page_of(relearn=audit(row(0.03)), probe=audit(row(0.2, width=0.3)))
    assert card(text).startswith(
        "None of the 2 attacks (probe and relearn) tells the model from a retrained one. This is "
        "no proof: another attack may."
    )
    one = card(page_of(relearn=audit(row(0.03))))
    assert one.startswith(
        "The attack relearn does not tell the model from a retrained one. This is"
    )
    assert 'class="card verdict "' in text, "neither good nor bad"


def test_no_retrained_model(page_of):
    text = page_of(
        relearn=audit(row(), sentence="16 images bring back 67%."),
        neighbors=audit(row(), attack=False, sentence="Coat loses most."),
    )
    words = card(text)
    assert words.startswith("Nothing can be concluded: without a retrained model nobody knows")
    assert "relearn: 16 images bring back 67%." in words
    assert "Coat" not in words, "it is no attack"
    assert "unlearned <b>14.25</b> dB <small>[13.75, 14.75]</small>" in text
    assert "No place: no retrained model to compare with." in text
    assert "config.reference" in text


def test_no_gap_is_counted_apart(page_of):
    text = page_of(relearn=audit(row(0.03)), probe=audit(row(gap=0.1)), stamp=audit(row(gap=0.2)))
    words = card(text)
    assert "The attack relearn does not tell" in words
    assert (
        "Probe and stamp say nothing here: there is no gap between the original and the "
        "retrained model." in words
    )
    assert "No place: no gap: they do not differ." in text
    alone = card(page_of(probe=audit(row(gap=0.1))))
    assert alone.startswith("Nothing can be concluded: no attack has a place on the line")
    assert "without a retrained model" not in alone


def test_left_out_audits_are_named_with_the_reason(page_of):
    text = page_of(relearn=audit(row(0.9)), benign=skipped("no images other"), empty=audit())
    assert "Left out: benign and empty." in card(text)
    assert "Left out: no images other." in text
    assert "Left out: it found nothing." in text
    assert card(page_of(benign=skipped())).startswith("The result was not attacked")


def test_what_is_no_attack_does_not_count(page_of):
    text = page_of(relearn=audit(row(0.03)), neighbors=audit(row(-3.0), attack=False))
    assert card(text).startswith("The attack relearn does not tell")
    assert "This is no attack, so the verdict does not count it." in text
    assert "Over-forgotten" not in text


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (row(0.1), State.HIDDEN),
        (row(0.09), State.ALIKE),
        (row(0.5, width=0.5), State.ALIKE),
        (row(-0.1), State.OVER),
        (row(-0.09, width=0.01), State.ALIKE),
        (row(-0.5, width=0.5), State.ALIKE),
        (row(0.3, floor=0.5), State.HIDDEN),
        (row(0.24, floor=0.5), State.ALIKE),
        (row(-0.24, floor=-0.5), State.ALIKE),
        (row(0.9, width=None), State.UNCLEAR),
        (row(float("nan")), State.UNCLEAR),
        (row(0.9, width=float("inf")), State.UNCLEAR),
        (row(gap=0.1), State.NO_GAP),
        (row(), State.NO_REFERENCE),
    ],
)
def test_what_a_place_says(found, expected):
    """The gap is 2, so that a floor of 0.5 is 0.25 of it: smaller places mean nothing."""
    assert state(audit(found)) == expected


def test_a_place_without_an_interval_does_not_count(page_of):
    words = card(page_of(a=audit(row(0.9, width=None)), b=audit(row(0.01))))
    assert "A does not count: the place has no interval." in words
    assert "Hidden" not in words


@pytest.mark.parametrize("place", [None, -9.0, -0.5, 0.0, 0.5, 9.0])
def test_forgotten_is_never_a_fact(place):
    found = verdict.verdict({"a": audit(row(place)), "b": audit(row(place, width=None))})
    words = " ".join([*found.titles, *found.more])
    for each in re.findall(r"\S+ \S*forgotten\S*", f". {words}"):
        assert each.endswith(("not forgotten:", "Over-forgotten:")), words


def test_the_line_has_the_place_the_interval_and_the_floor():
    inside = audit_drawings.place(row(0.5, floor=0.5))
    assert ">0.50 [0.45, 0.55]</text>" in inside
    assert ">0 retrained<" in inside
    assert ">1 original<" in inside
    assert f'fill="{audit_drawings.BAND}"' in inside
    assert "Z" not in inside, "no arrow"
    assert f'fill="{audit_drawings.BAND}"' not in audit_drawings.place(row(0.5))
    for beyond in (2.5, -1.5):
        drawn = audit_drawings.place(row(beyond))
        assert "Z" in drawn, "an arrow"
        assert f">{beyond:.2f} [" in drawn
        assert 'rx="6"' not in drawn, "no dot where it is not"
    left, right = (float(re.findall(r'rect x="([0-9.]+)"', audit_drawings.place(row(at)))[0])
                   for at in (0.0, 1.0))  # fmt: skip
    assert left < right


def test_lines_with_bands_over_numbers(page_of):
    text = page_of(relearn=audit(row(0.9), *curve()))
    charts = text[text.index('<div class="charts">') :].partition("</svg>")[0]
    assert charts.count('opacity="0.15"') == 4, "a band for each variant"
    assert [x for x in ("0", "10", "40") if f">{x}</text>" in charts] == ["0", "10", "40"]
    assert "steps, values in dB" in charts
    original, unlearned, *_ = re.findall(r'd="(M[^"Z]*)" fill="none" stroke="#(?!e2)', charts)
    assert original.count("L") == unlearned.count("L") == 2, "three points"
    across = [float(x) for x in re.findall(r"[ML]([0-9.]+) ", unlearned)]
    assert across == sorted(across), "0, 10, 40: in the order of the axis"
    assert '<div class="legend">' in text


def test_dots_with_whiskers_over_names():
    blocks = curve("accuracy", "block", ("encoder.5", "encoder.10", "decoder.0"))
    drawn = audit_drawings.chart(audit_words.along(blocks, "block"), "block", "")
    order = [drawn.index(f">{name}<") for name in ("encoder.5", "encoder.10", "decoder.0")]
    assert order == sorted(order)
    assert drawn.count('fill="#ea580c"') == 3, "a dot for each block"
    classes = curve("loss", "class", ("Bag", "Coat", "Shirt"))
    ordered = [each["at"]["class"] for each in audit_words.along(classes, "class")]
    assert ordered == ["Shirt", "Coat", "Bag"], "the highest value of the unlearned model first"


def test_charts_that_cannot_be_drawn():
    rows = curve()
    for each in rows:
        each["values"] = {"unlearned": {"value": float("nan"), "interval": None}}
    assert audit_drawings.chart(rows, "steps", "dB") == ""
    assert audit_drawings.chart([], "steps", "dB") == ""
    for value in (0.0, 5e-324, 1e29, -1e-300):
        for at, each in enumerate(rows):
            each["values"] = {"unlearned": measured(value if at else 0.0, 0.0)}
        assert "nan" not in audit_drawings.chart(rows, "steps", "dB")


def test_each_curve_has_its_own_chart(page_of):
    text = page_of(relearn=audit(row(0.9), *curve(images=4), *curve(images=16)))
    assert text.count('opacity="0.15"') == 8
    assert "PSNR over time; 4 images<" in text
    assert "PSNR over time; 16 images<" in text


def test_a_table_has_all_rows(page_of):
    text = page_of(relearn=audit(row(0.9, images_per_class=1, images=4, steps=10), row(gap=0.1)))
    body = text[text.index('<details class="figures">') :].partition("</details>")[0]
    assert "All 2 figures of relearn" in body
    assert "dB, 1 image per class, 4 images, 10 steps" in body
    assert "<td>14.25 <small>[13.75, 14.75]</small></td>" in body
    assert "<td>0.90 <small>[0.85, 0.95]</small></td>" in body
    assert "<small>no gap</small>" in body
    assert "Cost: trains for 40 steps. Arguments: steps = [0, 40]. Time: original 12 s" in body
    link = re.search(r'href="#(audit-\d+)"', text)
    assert link
    assert f'id="{link[1]}"' in text


def test_what_speaks_against_the_model_stands_first(page_of):
    text = page_of(a=skipped(), b=audit(row()), c=audit(row(0.01)), d=audit(row(0.4)),
                   e=audit(row(0.8)), f=audit(row(9.0), attack=False))  # fmt: skip
    order = re.findall(r"</b><small>(\w) ", text)
    assert order == ["e", "d", "c", "b", "f", "a"]


def test_places_in_words():
    assert audit_words.where({"images": 16, "steps": 1}) == "16 images, 1 step"
    assert audit_words.where({"block": "encoder.5", "false_rate": 0.01}) == (
        "block encoder.5, false rate 0.01"
    )
    assert audit_words.value(-0.001, 2) == "0.00"
    assert audit_words.value(1e300, 2) == "1e+300"
    assert audit_words.value(float("nan"), 2) == audit_words.PLAIN_DASH


@pytest.mark.parametrize("field", ["title", "cost", "sentence", "args", "unit", "figure", "where",
                                   "why", "name", "over", "skipped"])  # fmt: skip
def test_every_text_is_escaped(page_of, field):
    name, bad = "relearn", audit(row(0.9), *curve(), row())
    if field in ("title", "cost", "sentence"):
        bad[field] = EVIL
    elif field == "args":
        bad["args"] = {EVIL: EVIL}
    elif field in ("unit", "figure"):
        for each in bad["figures"]:
            each["title" if field == "figure" else field] = EVIL
    elif field == "why":
        bad["rows"] = [row() | {"why": EVIL}]
    elif field in ("where", "over"):
        bad["rows"] = [row(0.9, figure="curve") | {"at": {EVIL: x}} for x in (EVIL, "b")]
        bad["figures"][1]["over"] = EVIL if field == "over" else "steps"
    elif field == "skipped":
        bad = skipped(EVIL)
    else:
        name = EVIL
    text = page_of(**{name: bad})
    assert foreign(text) == []
    assert "<script" not in without_script(text)
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ((), [], "audits should be a section"),
        (("a",), 3, "audits.a should be a section"),
        (("a", "title"), None, "audits.a.title should be a text"),
        (("a", "rows"), {}, "audits.a.rows should be a list"),
        (("a", "rows", 0, "figure"), "none", "rows.0.figure should be one of 'psnr'"),
        (("a", "rows", 0, "place"), 0.5, "rows.0.place should be a section"),
        (("a", "rows", 0, "place", "value"), None, "place.value should be a number"),
        (("a", "rows", 0, "place", "interval"), [1], "interval should be a list of 2 to 2 values"),
        (("a", "rows", 0, "values", EVIL), measured(1.0), "values should be one of 'original'"),
        (("a", "rows", 0, "values", "original"), 1.0, "values.original should be a section"),
        (("a", "rows", 0, "at"), {"steps": [1]}, "at.steps should be a number"),
        (("a", "figures", 0, "digits"), 99, "digits should be a number of decimal places"),
        (("a", "attack"), "yes", "audits.a.attack should be one of True, False"),
        (("a", "seconds"), {"original": "x"}, "seconds.original should be a number"),
        (("b", "skipped"), None, "audits.b.skipped should be a text"),
    ],
)
def test_another_form_is_refused(tmp_path, path, value, expected):
    folder = make(tmp_path / "demo", audits={"a": audit(row(0.9, steps=10)), "b": skipped()})
    change(folder, "results.json", ["audits", *path], value)
    with pytest.raises(ConfigError, match=re.escape(expected)) as error:
        collect(folder)
    assert "\n" not in str(error.value)


def test_names_and_sentences_are_escaped_in_the_verdict(page_of):
    text = page_of(**{EVIL: audit(row(), sentence=EVIL)})
    items = re.findall(r"<li>(.*?)</li>", text)
    assert any(each == f"{html.escape(EVIL)}: {html.escape(EVIL)}" for each in items)


def test_the_page_needs_no_script_and_nothing_from_elsewhere(page_of):
    text = page_of(relearn=audit(row(0.9), *curve()), other=skipped())
    assert foreign(text) == []
    assert phase()["method"] in text
