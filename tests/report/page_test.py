"""The page shows what the files hold, loads no other file, and escapes every name."""

import re

import numpy as np
import pytest

from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError
from l2l_jax.report import drawings, metrics, page, reference
from l2l_jax.report.collect import collect
from tests.report.runs import HOSTILE, cell, change, make, without_script


@pytest.fixture
def workdir(tmp_path):
    return make(tmp_path / "demo")


def test_the_page_shows_the_figures(workdir):
    text = page.write(workdir).read_text()
    for expected in ("5.0&times;", "+10.0%", "-0.20 dB", "12.00", "60.00", "n = 40", "88.0%", "l2l",
                 "d" * 32, "c" * 16, "0" * 64, "retain objective", "forget objective"):  # fmt: skip
        assert expected in text, expected
    assert text.count("<svg") == 2
    assert text.count('class="card grid"') == 1


def test_costs_stand_with_the_provenance(workdir):
    change(workdir, "results.json", ["cost"], {})
    assert "cost, unlearn" not in page.write(workdir).read_text(), "none was measured"
    cost = dict(seconds=83.2, steps=200, flops=3.1e13, memory=2.34e9)
    change(workdir, "results.json", ["cost"], {"unlearn": cost})
    text = page.write(workdir).read_text()
    assert "cost, unlearn</dt><dd>83 s, 200 steps, 31.0 TFLOP, peak memory 2.34 GB<" in text


@pytest.mark.slow
def test_which_weights_were_evaluated_stands_with_their_digest(workdir):
    bare = page.write(workdir).read_text()
    assert f"weights, original</dt><dd><code>{'0' * 64}</code>" in bare
    described = {"original": "as loaded from a&b", "unlearned": "moving average of phase unlearn"}
    change(workdir, "results.json", ["evaluated"], described)
    text = page.write(workdir).read_text()
    assert f"original</dt><dd>as loaded from a&amp;b, <code>{'0' * 64}</code>" in text
    assert f"unlearned</dt><dd>moving average of phase unlearn, <code>{'1' * 64}</code>" in text


def test_how_a_phase_ended(workdir):
    expected = "unlearn ended at step 1 of 4: moved 0.0512, lambda 0.05"
    change(workdir, "results.json", ["ended"], {"unlearn": expected})
    change(workdir, "results.json", ["steps", "unlearn"], [1, 4])
    text = page.write(workdir).read_text()
    assert f"<p>U{expected[1:]}.</p>" in text
    assert "Not finished" not in text, "its stopping criterion was met"
    expected = "not reached: moved 0.03 after 4 steps, lambda 0.05"
    change(workdir, "results.json", ["ended"], {"unlearn": expected})
    assert f'<div class="card warn">N{expected[1:]}.</div>' in page.write(workdir).read_text()


def test_the_distance_to_the_retrained_model(workdir):
    for variant, value in (("original", 0.1), ("unlearned", 0.05)):
        for side in ("retain", "forget"):
            for start in ([], ["tasks", "center"]):
                change(workdir, "results.json", [*start, variant, side, "retrain_distance"], value)
    text = page.write(workdir).read_text()
    assert text.count('class="good">-0.0500') == 2, "smaller is better on both sides"
    assert "smaller is closer" in text


def with_training_images(tmp_path, name, sets):
    """A run with a set of training images under its only task, and intervals of one figure."""
    side = next(each for each in sets if each.endswith("_train"))
    tasks = {
        v: {"retain": cell(10.0, 20.0), "forget": cell(12.0, 19.0), side: cell(9.0, psnr)}
        for v, psnr in (("original", 22.5), ("unlearned", 12.25))
    }
    folder = make(tmp_path / name, tasks=tasks)
    about = dict(part="eval", images=40, of=40, digest="a", trained_on=False)
    change(folder, "results.json", ["sets"], {k: about | v for k, v in sets.items()})
    bounds = ["intervals", "center", "unlearned", side, "psnr"]
    change(folder, "results.json", bounds, [11.5, 13.0])
    change(folder, "results.json", ["intervals", "center", "original", "retain", "fid"], [9, 11.5])
    return folder


def test_the_images_asked_for_stand_beside_held_out_ones(tmp_path):
    sets = {"retain": {}, "forget": {},
            "forget_train": dict(part="train", of=5200, trained_on=True)}  # fmt: skip
    folder = with_training_images(tmp_path, "run", sets)
    text = page.write(folder).read_text()
    assert "center, forget_train beside forget" in text
    values = "<td>22.50</td><td>19.00</td><td>+3.50</td>"
    assert values + "<td>12.25 <small>[11.50, 13.00]</small></td><td>19.00</td><td>-6.75" in text
    assert "forget_train: 40 of the 5,200 training images that the model was asked to forget, " \
        "drawn with the seed; they were trained on." in text  # fmt: skip
    assert "forget: 40 held-out images; they were not trained on." in text
    assert "10.00 <small>[9.00, 11.50]</small>" in text
    assert "95 % bootstrap intervals" in text
    assert "FID and Inception Score depend on the number" not in text
    change(folder, "results.json", ["sets", "forget_train", "images"], 12)
    assert "There are 12 images of forget_train and 40 of forget" in page.write(folder).read_text()


def test_a_list_of_files_stands_beside_training_images(tmp_path):
    sets = {"retain": {}, "forget": dict(part="train", trained_on=True),
            "retain_train": dict(part="train", of=60, trained_on=True)}  # fmt: skip
    text = page.write(with_training_images(tmp_path, "run", sets)).read_text()
    assert "center, retain_train beside forget" in text
    assert "forget: the 40 listed training images themselves; they were trained on." in text
    assert "forget is compared with them, and not with the held-out retain images" in text


def test_titles_units_and_digits_come_from_the_results(workdir):
    change(workdir, "results.json", ["figures", "l1", "title"], "L<1>")
    change(workdir, "results.json", ["figures", "l1", "unit"], "<of 1>")
    change(workdir, "results.json", ["figures", "l1", "digits"], 1)
    text = page.write(workdir).read_text()
    assert "<td>L&lt;1&gt; <small>&lt;of 1&gt;</small></td><td>0.1</td>" in text
    order = [text.index(f"<td>{title}") for title in ("FID", "Inception Score", "cosine", "PSNR")]
    assert order == sorted(order)
    assert "deviation over splits" not in text, "a spread is no row of its own"


def test_objectives_that_are_zero_or_negative_are_drawn_well():
    steps = [{"phase": "a", "step": i, "retain": 0.0, "forget": -float(i)} for i in range(9)]
    assert "forget objective" in drawings.curves(steps, "a")
    assert "retain objective" not in drawings.curves(steps, "a")
    low = [{**record, "forget": -5.0 + record["step"]} for record in steps]
    assert "\N{MINUS SIGN}4" in drawings.curves(low, "a"), "what is below zero is not cut off"
    missing = [{"phase": "a", "step": i, "retain": 1.0 + i} for i in range(9)]
    assert "retain objective" in drawings.curves([*missing, {"phase": "a", "step": 9}], "a")
    nothing = [{"phase": "a", "step": i, "retain": 0.0, "forget": 0.0} for i in range(9)]
    assert drawings.curves(nothing, "a") == ""


def test_the_page_loads_nothing_from_the_network(workdir):
    text = page.write(workdir).read_text()
    fetched = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"|url\(([^)]*)\)|@import', text)
    wanted = [a or b for a, b in fetched]
    assert all(w.startswith(("data:", "#")) for w in wanted), wanted
    assert "<script" not in without_script(text)


def test_names_cannot_break_the_page(workdir):
    text = page.write(workdir).read_text()
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text


def test_good_and_bad_depend_on_the_side(workdir):
    text = page.write(workdir).read_text()
    assert 'class="bad">+1.00' in text, "a retain FID that rises"
    assert 'class="same">+48.00<' in text, "a forget FID that rises is neither, and has no arrow"
    assert "without a retrained model nobody knows" in text


def compared(tmp_path, fid):
    """The page of a run whose forget FID goes from 12 to 60, with a retrained model at `fid`."""
    cells = {"retain": cell(10.5, 19.5), "forget": cell(fid, 14.0)}
    tasks = {
        "original": {"retain": cell(10.0, 20.0), "forget": cell(12.0, 19.0)},
        "unlearned": {"retain": cell(11.0, 19.8), "forget": cell(60.0, 18.0)},
        "retrained": cells,
    }
    return page.write(make(tmp_path / str(fid), tasks=tasks)).read_text()


def test_the_retrained_model_decides_what_is_good_on_the_forget_side(tmp_path):
    text = compared(tmp_path, 70.0)
    assert 'class="good">+48.00' in text, "closer to the retrained model than the original is"
    assert "<td>-10.00</td>" in text
    assert f"{reference.MARK}<small>" not in text
    assert "retrained 70.00" in text
    assert "<th>unlearned &minus; retrained</th>" in text


def test_a_figure_beyond_the_retrained_model_is_over_forgotten(tmp_path):
    text = compared(tmp_path, 30.0)
    assert 'class="bad">+48.00' in text, "30 beyond is further than the original's 18"
    mark = f'<td class="bad">+30.00 {reference.MARK}<small>over-forgotten</small></td>'
    assert mark in text
    assert f"retrained 30.00 {reference.MARK} over-forgotten" in text, "in the tile"
    assert "beyond the retrained model's figure".replace("'", "&#x27;") in text


def test_models_and_what_they_were_trained_on_stand_beside_each_other(tmp_path):
    folder = make(tmp_path / "run", tasks={
        v: {side: cell(fid, 20.0, retrain_distance=0.1 * fid) for side in ("retain", "forget")}
        for v, fid in (("original", 1.0), ("unlearned", 2.0), ("retrained", 3.0),
                       ("retrained_2", 5.0))
    })  # fmt: skip
    tokenizer = "t.safetensors: 60 images, split retain of fake"
    change(folder, "results.json", ["training", "retrained_2", "tokenizer"], tokenizer)
    change(folder, "results.json", ["training", "original", "passes"], None)
    text = page.write(folder).read_text()
    row = "<td>60 images, split retain of fake</td><td>60</td><td>{}</td><td>4</td><td>{}</td>"
    assert "<td>retrained</td>" + row.format("2.00", "&ndash;") in text
    assert "<td>retrained 2</td>" + row.format("2.00", tokenizer) in text
    assert "<td>original</td>" + row.format("&ndash;", "&ndash;") in text, "not known is a dash"
    assert "The floor is how far these differ from each other under center: FID 2.00 (re" in text
    assert "distance to retrained 0.4000 (forget)" in text


@pytest.mark.slow
def test_damage_to_the_retain_side_is_a_warning(workdir):
    assert "more than doubled" not in page.write(workdir).read_text()
    results = files.read_json(workdir / "results.json")
    results["tasks"]["center"]["unlearned"]["retain"]["l1"] = 0.2
    files.write_json(workdir / "results.json", results)
    assert "more than doubled" in page.write(workdir).read_text()


@pytest.mark.slow
def test_it_states_what_was_trained_on(workdir):
    assert "40 forget images that were not trained on" in page.write(workdir).read_text()
    path = workdir / "splits" / "forget_eval.json"
    files.write_json(path, files.read_json(path) | dict(part="train"))
    assert "40 forget images that were trained on" in page.write(workdir).read_text()
    results = files.read_json(workdir / "results.json")
    files.write_json(workdir / "results.json", results | dict(trained_on=["retain"]))
    text = page.write(workdir).read_text()
    assert "40 forget images that were not trained on" in text, "it was retrained without them"
    assert text.count("</code>, not trained on") == 1, "the forget split"


def test_a_pretrained_model_has_a_page_too(workdir):
    results = files.read_json(workdir / "results.json")
    for place in (results, results["tasks"]["center"]):
        del place["unlearned"]
        del place["original"]["forget"]
    del results["counts"]["forget"]
    del results["classes"]["forget_eval"]
    files.write_json(workdir / "results.json", results)
    text = page.write(workdir).read_text()
    assert "A small masked autoencoder trained on Fashion-MNIST" in text
    bare = re.sub(r"<style>.*</style>", "", without_script(text), flags=re.DOTALL)
    assert "change" not in bare


def test_an_unfinished_run_is_called_unfinished(workdir):
    assert "Not finished" not in page.write(workdir).read_text()
    results = files.read_json(workdir / "results.json")
    files.write_json(workdir / "results.json", results | {"steps": {"unlearn": [1, 4]}})
    assert "the phase unlearn was at step 1 of 4" in page.write(workdir).read_text()


def test_every_launch_is_listed(workdir):
    versions = files.read_json(workdir / "versions.json")
    later = {k: v for k, v in versions.items() if k != "continued_with"} | dict(devices="8 x TPU")
    files.write_json(workdir / "versions.json", versions | dict(continued_with=[later]))
    text = page.write(workdir).read_text()
    assert "launch 1" in text
    assert "8 x TPU" in text


@pytest.mark.slow
def test_the_same_files_give_the_same_page(workdir):
    assert page.write(workdir).read_bytes() == page.write(workdir).read_bytes()


def test_a_run_without_results_names_the_missing_files(workdir):
    (workdir / "results.json").unlink()
    with pytest.raises(ConfigError, match=r"results\.json missing.*l2l_jax\.evaluate --workdir"):
        collect(workdir)


def test_moving_mean():
    np.testing.assert_allclose(drawings.moving_mean(np.array([1.0, 3, 5, 7]), 2), [1, 2, 4, 6])
    np.testing.assert_allclose(drawings.moving_mean(np.array([1.0, 3, 5, 7]), 10), [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "&ndash;"), (0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (12_345, "12.3 kB"),
     (999_600, "1.00 MB"), (4.2e15, "4.20 PB"), (7e26, "700000 ZB")],
)  # fmt: skip
def test_si(value, expected):
    assert metrics.si(value, "B") == expected


def test_only_the_first_task_has_training_images(workdir):
    """Of other tasks, the held-out sides are enough; those of the first task must be complete."""
    results = files.read_json(workdir / "results.json")
    for key, values in (("tasks", dict(results["tasks"]["center"]["original"]["forget"])),
                      ("intervals", {})):  # fmt: skip
        first = results[key]["center"]
        results[key]["outpaint"] = {v: dict(sides) for v, sides in first.items()}
        results[key]["center"] = {v: sides | {"forget_train": values} for v, sides in first.items()}
    results["counts"]["forget_train"] = 40
    results["sets"]["forget_train"] = dict(results["sets"]["forget"], part="train")
    config = files.read_json(workdir / "config.json")
    config["tasks"]["outpaint"] = config["tasks"]["center"]
    config["evaluate"]["tasks"] = ["center", "outpaint"]
    files.write_json(workdir / "config.json", config)
    files.write_json(workdir / "results.json", results)
    assert "forget_train beside forget" in page.write(workdir).read_text()
    del results["tasks"]["center"]["unlearned"]["forget_train"]
    files.write_json(workdir / "results.json", results)
    with pytest.raises(ConfigError, match=r"center\.unlearned\.forget_train should be there"):
        page.write(workdir)
