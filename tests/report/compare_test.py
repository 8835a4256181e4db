"""Several runs on one page: groups of seeds, the best marked, unequal conditions named."""

import math
import re
import statistics
from pathlib import Path

import pytest

from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError
from l2l_jax.report import reference
from l2l_jax.report.__main__ import main
from l2l_jax.report.collect import collect
from l2l_jax.report.compare import common_folder
from l2l_jax.report.groups import grouped
from l2l_jax.report.model_rows import rows
from l2l_jax.report.tables import cost_of
from tests.report.runs import (
    EVALUATORS,
    HOSTILE,
    cell,
    change,
    figures,
    make,
    phase,
    without_script,
)


@pytest.fixture
def runs(tmp_path):
    """Two runs from one original; the second forgets more and retains less."""
    first = make(tmp_path / "a")
    second = make(tmp_path / "b", phases={"unlearn": phase("max_loss")})
    change(second, "results.json", ["tasks", "center", "unlearned", "forget", "fid"], 90.0)
    change(second, "results.json", ["tasks", "center", "unlearned", "retain", "fid"], 15.0)
    return first, second


@pytest.fixture
def seeds(tmp_path):
    """Three seeds of l2l and of max_loss, with a reference, costs, and an original of each seed."""
    made = []
    for seed, fid in enumerate((11.0, 12.0, 16.0)):
        for method in ("l2l", "max_loss"):
            tasks = {
                "original": {"retain": cell(10.0 + seed, 20.0), "forget": cell(12.0, 19.0)},
                "unlearned": {
                    "retain": cell(fid, 19.0, retrain_distance=0.03),
                    "forget": cell(fid * (5 if method == "l2l" else 6), 9.0, retrain_distance=0.2),
                },
                "retrained": {"retain": cell(10.5, 19.5), "forget": cell(30.0, 14.0)},
            }
            cost = dict(seconds=8.0 + seed, steps=4, flops=2e12, memory=3e9 + seed * 1e8)
            made.append(
                make(tmp_path / f"{method}{seed}", seed, {"unlearn": phase(method)}, tasks,
                     cost={"unlearn": cost})
            )  # fmt: skip
            weights = ["digests", "weights", "original"]
            change(made[-1], "results.json", weights, str(seed) * 64)
    return made


def page_of(*runs):
    out = runs[0].parent / "compared.html"
    main([*map(str, runs), "--out", str(out)])
    return out.read_text()


def rows_of(text, heading="Figures"):
    """{label: cells of its row} of the first table after a heading."""
    text = text[text.index(f">{heading}</h2>") :]
    table = text[text.index("<tbody>") : text.index("</tbody>")]
    found = (re.findall(r"<td(.*?)</td>", row) for row in table.split("</tr>"))
    return {row[0].lstrip(">"): row[1:] for row in found if row}


def test_runs_stand_beside_their_original(runs):
    text = page_of(*runs)
    found = rows_of(text)
    assert list(found) == ["original", "l2l", "max_loss"]
    assert found["original"][:2] == [">1", ">10.00"]
    assert found["l2l"][1] == ' class="good">11.00', "retain: the smaller FID is good"
    assert found["max_loss"][1] == ">15.00"
    assert ">90.00" in found["max_loss"], "forget: nothing is best without a retrained model"
    assert "without a retrained model nobody knows how badly" in text
    assert "There is no Pareto front" in text
    assert reference.MARK not in text
    assert text.count(' class="good"') == 1
    assert found["l2l"][2] == found["max_loss"][2] == ">3.00", "none is best where all are equal"
    assert "Not measured under equal conditions" not in text
    assert text.count('class="card grid"') == 1, "both grids in one"


@pytest.mark.slow
def test_the_page_stands_alone(seeds):
    text = page_of(*seeds)
    fetched = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"|url\(([^)]*)\)|@import', text)
    assert all((a or b).startswith(("data:", "#")) for a, b in fetched)
    assert "<script" not in without_script(text)
    assert HOSTILE not in text
    assert text == page_of(*seeds), "the same files give the same page"


def test_seeds_are_one_row(seeds):
    text = page_of(*seeds)
    found = rows_of(text)
    assert list(found) == ["original", "retrained", "l2l", "max_loss"]
    # 11, 12, 16: mean 13, deviations -2, -1, 3, variance (4 + 1 + 9) / 2 = 7
    spread = f"{math.sqrt(7):.2f}"
    assert spread == "2.65"
    assert found["l2l"][:2] == [">3", f">13.00 <small>&plusmn; {spread}</small>"]
    assert found["original"][1] == ">11.00 <small>&plusmn; 1.00</small>", "one of each seed"
    assert "seeds" in text
    assert "Not measured under equal conditions" not in text


def test_the_distance_to_the_retrained_model_is_good_when_small(seeds):
    for seed in range(3):
        path = ["tasks", "center", "unlearned", "forget", "retrain_distance"]
        change(seeds[2 * seed + 1], "results.json", path, 0.1)
    text = page_of(*seeds)
    found = rows_of(text)
    assert found["max_loss"][-1].startswith(' class="good">0.1000')
    assert found["l2l"][-1].startswith(">0.2000")
    assert found["retrained"][-1] == ">&ndash;"
    assert text.count("distance to retrained &darr;") == 2, "down on both sides"
    assert "not the same as like the retrained model" in text


def test_a_single_seed_has_intervals_and_training_images(runs, capsys):
    for folder in runs:
        bounds = {"retain": {"fid": [10.25, 12.5]}, "forget": {}, "forget_train": {}}
        change(folder, "results.json", ["intervals", "center", "unlearned"], bounds)
        side = ["tasks", "center", "unlearned", "forget_train"]
        change(folder, "results.json", side, cell(7.25, 12.0))
        about = dict(part="train", images=40, of=90, digest="a", trained_on=True)
        change(folder, "results.json", ["sets", "forget_train"], about)
    text = page_of(*runs)
    assert rows_of(text)["l2l"][1].endswith("11.00 <small>[10.25, 12.50]</small>")
    assert "They stand at models of a single seed" in text
    beside = text[text.index("forget_train beside forget") :]
    assert ">7.25<" in beside
    assert "7.25" not in text[: text.index("forget_train beside forget")]
    assert "forget_train: 40 of the 90 training images" in beside
    main([*map(str, runs), "--markdown", "fid"])
    assert "11.00 [10.25, 12.50]" in capsys.readouterr().out


@pytest.fixture
def three(tmp_path):
    """Originals at 10 and a retrained model at 40: too little, nearly the same, and too much."""
    made = []
    for method, fid in (("max_loss", 90.0), ("l2l", 20.0), ("noisy_label", 38.0)):
        tasks = {
            "original": {"retain": cell(3.0, 20.0), "forget": cell(10.0, 19.0)},
            "unlearned": {"retain": cell(3.0 + fid / 100, 19.0), "forget": cell(fid, 19.0)},
            "retrained": {"retain": cell(3.5, 19.5), "forget": cell(40.0, 14.0)},
            "retrained_2": {"retain": cell(3.5, 19.5), "forget": cell(44.0, 14.2)},
        }
        made.append(make(tmp_path / method, 0, {"unlearn": phase(method)}, tasks))
    return made


def test_with_a_retrained_model_the_closest_is_best_and_first(three):
    text = page_of(*three)
    found = rows_of(text)
    assert list(found) == ["original", "retrained", "retrained 2", "noisy_label", "l2l", "max_loss"]
    at = found["max_loss"].index(">90.00 †")
    assert found["noisy_label"][at] == ' class="good">38.00', "closest to 42, the mean of 40 and 44"
    assert found["l2l"][at] == ">20.00", "less than the retrained model: nothing is over-forgotten"
    assert "Here: max_loss in FID." in text
    assert "over-forgotten</tspan>" in text or ">over-forgotten<" in text, "it stands in the plot"


@pytest.mark.slow
def test_beyond_by_less_than_the_floor_is_not_over_forgotten(three):
    path = ["tasks", "center", "unlearned", "forget", "fid"]
    change(three[0], "results.json", path, 45.0)
    assert rows_of(page_of(*three))["max_loss"][6].endswith(">45.00"), "42 + 3, floor 4"
    change(three[0], "results.json", path, 46.5)
    assert rows_of(page_of(*three))["max_loss"][6] == ">46.50 †"


@pytest.mark.slow
def test_a_reference_that_is_not_clean_is_marked_wherever_it_stands(three, capsys):
    for folder in three:
        reasons = {"retrained": ["its tokenizer from bundled:x was trained on other images"]}
        change(folder, "results.json", ["unclean"], reasons)
    text = page_of(*three)
    assert "retrained (not clean)" in rows_of(text)
    assert "Retrained (not clean): its tokenizer from bundled:x was trained on other" in text
    assert re.search(r"<text[^>]*>retrained \(not clean\)</text>", text), "in the plot"
    main([*map(str, three), "--markdown"])
    assert "| retrained (not clean) |" in capsys.readouterr().out
    main([str(three[0])])
    page = (three[0] / "report.html").read_text()
    assert "<th>retrained (not clean)</th>" in page
    assert "<td>retrained (not clean)</td>" in page, "in the table of trainings"
    assert 'class="card warn">Retrained (not clean)' in page


def test_retrained_models_that_differ_within_a_seed_are_named(three):
    change(three[1], "results.json", ["digests", "weights", "retrained"], "9" * 64)
    assert "Not measured under equal conditions: the retrained models differ" in page_of(*three)


def test_a_value_that_some_seeds_lack_says_so(seeds):
    cells = {"fid": 11.0}
    change(seeds[0], "results.json", ["tasks", "center", "unlearned", "retain"], cells)
    assert any("<small>2 of 3 seeds</small>" in cell for cell in rows_of(page_of(*seeds))["l2l"])


@pytest.mark.parametrize(
    ("name", "path", "value", "expected"),
    [
        ("results.json", ["networks", "main", "digest"], "0" * 64, "the feature networks differ"),
        ("splits/retain_eval.json", ["digest"], "0" * 64, "the images differ"),
        ("config.json", ["tasks", "center", "args", "cells"], 3, "the masks differ"),
        ("results.json", ["sampling"], "ddpm, 10 of 10 steps", "the sampling methods differ"),
        ("config.json", ["seed"], 7, "the seeds, and with them the masks, differ"),
        ("results.json", ["digests", "weights", "original"], "2" * 64, "the originals differ"),
    ],
)
def test_unequal_conditions_are_named(runs, name, path, value, expected):
    change(runs[1], name, path, value)
    assert f"Not measured under equal conditions: {expected}" in page_of(*runs)


def test_originals_may_differ_between_seeds_but_not_within_one(seeds):
    change(seeds[3], "results.json", ["digests", "weights", "original"], "9" * 64)
    text = page_of(*seeds)
    assert "Not measured under equal conditions: the originals with seed 1 differ" in text
    assert list(rows_of(text))[:2] == ["original of l2l", "original of max_loss"]


def test_a_group_that_lacks_a_seed_is_named(seeds):
    text = page_of(*seeds[:-1])
    assert "Not measured under equal conditions: the seeds, and with them the masks, differ" in text
    assert "max_loss: <code>0, 1</code>" in text


def test_a_retrained_run_has_no_original_to_differ(runs):
    for path in (["digests", "weights"], ["tasks", "center"], ["intervals", "center"]):
        change(runs[1], "results.json", path, {"retrained": value_of(runs[1], path)["unlearned"]})
    results = ["unlearned", "original"]
    for key in results:
        drop(runs[1], key)
    change(runs[1], "results.json", ["retrained"], {})
    text = page_of(*runs)
    assert list(rows_of(text)) == ["original", "retrained", "l2l"]
    assert "Not measured under equal conditions" not in text


def value_of(folder, path):
    content = files.read_json(folder / "results.json")
    for key in path:
        content = content[key]
    return content


def drop(folder, key):
    content = files.read_json(folder / "results.json")
    del content[key]
    files.write_json(folder / "results.json", content)


def test_two_originals_are_two_rows(runs):
    change(runs[1], "results.json", ["tasks", "center", "original", "retain", "fid"], 1.0)
    assert list(rows_of(page_of(*runs)))[:2] == ["original of l2l", "original of max_loss"]


def test_runs_of_one_config_and_seed_are_two_rows(tmp_path):
    found = rows_of(page_of(make(tmp_path / "before"), make(tmp_path / "after")))
    assert list(found) == ["original", "l2l, before", "l2l, after"]


def test_runs_of_one_folder_name_are_labelled_by_their_path(runs, tmp_path):
    other = make(tmp_path / "elsewhere" / "a")
    assert f"l2l, {other}" in rows_of(page_of(runs[0], other))


def test_the_page_goes_above_the_runs(runs, capsys):
    main([str(run) for run in runs])
    assert capsys.readouterr().out.strip() == str(runs[0].parent / "report.html")
    assert "2 runs compared" in (runs[0].parent / "report.html").read_text()


def test_runs_without_a_common_folder_need_out():
    assert common_folder([Path("runs/a"), Path("runs/b/c")]) == Path("runs")
    with pytest.raises(ConfigError, match="--out FILE"):
        common_folder([Path("/one/a"), Path("/other/b")])


def test_what_is_not_an_evaluated_run_is_left_out_and_named(runs, tmp_path, capsys):
    (tmp_path / "report.html").write_text("a page")
    (tmp_path / "begun").mkdir()
    main([str(p) for p in (*runs, tmp_path / "report.html", tmp_path / "begun", tmp_path / "no")])
    errors, text = capsys.readouterr().err, (tmp_path / "report.html").read_text()
    for name, why in (
        ("report.html", "a file"),
        ("begun", "config.json, versions.json, results.json missing"),
        ("no", "there is no such folder"),
    ):
        assert f"left out: {tmp_path / name}: {why}" in errors
        assert f"{tmp_path / name}: {why}" in text


def test_without_any_run_there_is_no_page(tmp_path):
    (tmp_path / "begun").mkdir()
    with pytest.raises(ConfigError, match=r"None of these(?s:.*)begun: config\.json"):
        main([str(tmp_path / "begun"), str(tmp_path / "nothing")])
    with pytest.raises(ConfigError, match="holds no evaluated run"):
        main([str(tmp_path / "begun")])


@pytest.mark.slow
def test_phases_that_are_unfinished_or_missed_their_stopping_criterion(runs):
    change(runs[0], "results.json", ["steps", "unlearn"], [1, 4])
    assert "a: unlearn was at step 1 of 4" in page_of(*runs)
    change(runs[0], "results.json", ["ended"], {"unlearn": "unlearn ended at step 1 of 4"})
    assert "was at step 1 of 4" not in page_of(*runs)
    change(runs[0], "results.json", ["ended"], {"unlearn": "not reached: lambda <0.05>"})
    assert "a: not reached: lambda &lt;0.05&gt;" in page_of(*runs)


def test_costs(seeds):
    found = rows_of(page_of(*seeds), "Cost")
    assert found["l2l"] == [
        ">3",
        ">9 s",
        ">5 s",
        ">4",
        ">2.00 TFLOP",
        ">&ndash;",
        ">3.20 GB",
        ">1 x cpu",
    ]


def test_a_missing_cost_is_a_dash(runs):
    assert rows_of(page_of(*runs), "Cost")["l2l"] == [
        ">1", ">10 s", ">5 s", ">4", ">&ndash;", ">&ndash;", ">&ndash;", ">1 x cpu"
    ]  # fmt: skip
    assert cost_of(collect(runs[0]), "unlearn") == {"seconds": 10.0, "steps": 4}


def test_the_markdown_has_the_figures_of_the_page(seeds, capsys):
    main([*map(str, seeds), "--markdown"])
    printed, _, sentences = capsys.readouterr().out.partition("\n\n")
    lines = printed.splitlines()
    table = [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert len({len(line) for line in table}) == 1, "every row has every column"
    assert set(table[1]) <= {":--", "--:"}
    head, body = table[0], {line[0]: line[1:] for line in table[2:]}
    assert head[:3] == ["model", "seeds", "retain FID ↓"]
    assert list(body) == ["original", "retrained", "l2l", "max_loss"]
    at = head.index("forget FID ≈") - 1
    values = [6 * fid for fid in (11.0, 12.0, 16.0)]
    wanted = f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
    assert body["max_loss"][at] == f"{wanted} †", "30 would be like the retrained model"
    assert body["l2l"][at] == "**65.00 ± 13.23 †**", "the closest one is bold"
    assert "† over-forgotten: beyond the retrained model's figure" in sentences
    assert "Here: l2l in FID, PSNR, hidden pixels; max_loss in FID, PSNR" in sentences
    assert not (seeds[0].parent / "report.html").exists()
    main([*map(str, seeds), "--markdown", "psnr"])
    head = capsys.readouterr().out.splitlines()[0]
    assert "PSNR" in head
    assert "FID" not in head
    with pytest.raises(ConfigError, match="Did you mean 'psnr'"):
        main([*map(str, seeds), "--markdown", "pnsr"])


@pytest.mark.slow
def test_a_new_figure_is_shown_and_without_a_direction_nothing_of_it_is_best(tmp_path, capsys):
    lpips = figures("fid")["fid"] | dict(name="lpips", title="lpips", good="", digits=4)
    described = figures(*EVALUATORS) | {"lpips": lpips}
    for name, value in (("a", 0.25), ("b", 0.5)):
        sides = {side: cell(10.0, 20.0, lpips=value, ssim=1.0) for side in ("retain", "forget")}
        make(tmp_path / name, phases={"unlearn": phase(steps=len(name) + round(value * 4))},
             tasks={"original": sides, "unlearned": sides}, figures=described)  # fmt: skip
    words = [str(tmp_path / name) for name in "ab"]
    main([*words, "--markdown", "lpips"])
    text = capsys.readouterr().out
    assert "| retain lpips | forget lpips |" in text
    assert "0.2500 | 0.2500 |" in text
    assert "**" not in text
    main([*words, "--markdown"])
    assert "retain PSNR, hidden pixels \u2191" in (text := capsys.readouterr().out)
    assert "retain lpips" in text
    assert "ssim" not in text, "a figure that no evaluator declares does not exist"
    main([*words, "--out", str(tmp_path / "both.html")])
    assert "lpips" in (tmp_path / "both.html").read_text()
    main([words[0]])
    assert "lpips" in (tmp_path / "a" / "report.html").read_text()
    with pytest.raises(ConfigError, match=r"No metric called 'lpisp'\. Did you mean 'lpips'"):
        main([*words, "--markdown", "lpisp"])


def test_labels_are_escaped_in_markdown(tmp_path, capsys):
    made = [make(tmp_path / x, phases={"unlearn": phase(args={"noise": f"{x}|"})}) for x in "ab"]
    main([*map(str, made), "--markdown"])
    assert "| l2l, noise a\\| | 1 |" in capsys.readouterr().out


def test_the_plot_is_saved(seeds, tmp_path):
    main([*map(str, seeds), "--markdown", "--plot", str(tmp_path / "plot.png")])
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_rows_keep_the_seeds_in_order(seeds):
    found = rows(grouped([collect(run) for run in reversed(seeds)]), "center")
    assert all(row.seeds == (0, 1, 2) for row in found)
    assert [row.of(("retain", "fid")) for row in found if row.label == "l2l"] == [[11, 12, 16]]
