"""launch/samplers.py: its verdicts on given figures, and two small runs with every sampler."""

from types import SimpleNamespace

import numpy as np
import pytest

from l2l_jax.data import splits
from l2l_jax.engine import reuse
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.outcome import run_phases
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.engine.train import train
from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.preemption import StopSignal
from l2l_jax.lib.signatures import merge_args
from l2l_jax.registry import find
from l2l_jax.report import page
from l2l_jax.types import Source
from launch import samplers
from launch.samplers import AGAIN, COLUMNS, ORIGINAL, REFERENCE
from tests.helpers import once, small_config

STEPS = {"steps=1": 1, "steps=2": 2, "steps=10": 10}


def rows(**psnr):
    """{model: row} with these (retain, forget) PSNRs, FID = 50 - PSNR; the original has 20 dB."""
    psnrs = {ORIGINAL: (20.0, 20.0), **psnr}
    return {
        name: dict(zip(COLUMNS, (retain, 50 - retain, forget, 50 - forget), strict=True))
        | {"seconds": 0.5}
        for name, (retain, forget) in psnrs.items()
    }


REAL = rows(a=(19.8, 12.0), b=(18.0, 15.0), c=(19.7, 19.5))
NOISY = rows(a=(19.9, 12.1), b=(18.1, 15.1), c=(19.8, 19.6))  # 0.1 dB off, except for the original


def figures(**few):
    return {f"steps={n[1:]}": r for n, r in few.items()} | {REFERENCE: REAL, AGAIN: NOISY}


def test_only_pairs_beyond_the_margin_count():
    first = dict(a=1.0, b=2.0, c=2.1, d=5.0)
    found = samplers.rank_agreement(first, first, 0.5)
    assert found == {"tau": 1.0, "pairs": 5, "agreeing": 5}, "b and c are within the margin"
    swapped = samplers.rank_agreement(first, dict(a=1.0, b=2.1, c=2.0, d=5.0), 0.5)
    assert swapped == {"tau": 0.667, "pairs": 5, "agreeing": 5}, "so their order does not count"
    reverse = samplers.rank_agreement(first, dict(d=1.0, c=2.0, b=3.0, a=4.0), 0.5)
    assert reverse["agreeing"] == 0
    tie = samplers.rank_agreement(first, dict(a=1.0, b=1.0, c=2.0, d=5.0), 0.5)
    assert tie["agreeing"] == 4
    flat = samplers.rank_agreement(first, dict.fromkeys("abcd", 3.0), 9.0)
    assert flat == {"tau": None, "pairs": 0, "agreeing": 0}


def test_verdicts_are_relative_to_the_original_and_limits_belong_to_them():
    cells = {("a", "retain"): 0.3, ("a", "forget"): 7, ("b", "retain"): -1.5, ("b", "forget"): 4,
             ("c", "retain"): 0.2, ("c", "forget"): -0.5}  # fmt: skip
    assert samplers.distances_to_limits(REAL, 0.5, 1.0) == pytest.approx(cells)
    found = samplers.compare(figures(), 0.5, 1.0)
    assert found["verdicts"][REFERENCE] == {
        "a": "kept, forgot",
        "b": "not kept, forgot",
        "c": "kept, not forgot",
    }
    assert set(samplers.compare(figures(), 2.25, 0.25)["verdicts"][REFERENCE].values()) == {
        "kept, forgot"
    }
    assert samplers.distances_to_limits(rows(x=(19.5, 19.0)), 0.5, 1.0) == {
        ("x", "retain"): 0.0,
        ("x", "forget"): 0.0,
    }
    lost = samplers.compare(figures(n2=REAL | rows(a=(np.nan,) * 2, b=(18.0, 15.0))), 0.5, 1.0)
    assert lost["verdicts"]["steps=2"]["a"] == "not kept, not forgot"
    assert lost["settled"]["steps=2"] == {"pairs": 6, "agreeing": 4}


def test_a_verdict_nearer_to_its_limit_than_the_margin_is_not_settled():
    found = samplers.compare(figures(), 0.4, 1.0)  # a kept by 0.2 and c by 0.1, of 0.14
    assert found["verdicts"][REFERENCE]["c"] == "kept?, not forgot"
    assert found["verdicts"][REFERENCE]["a"] == "kept, forgot"
    assert found["settled"][REFERENCE] == {"pairs": 5, "agreeing": 5}
    few = rows(a=(19.8, 12.0), b=(18.0, 15.0), c=(19.5, 19.5))  # not kept
    found = samplers.compare(figures(n2=few), 0.4, 1.0)
    assert found["verdicts"]["steps=2"]["c"] == "not kept?, not forgot"
    assert found["settled"]["steps=2"] == {"pairs": 5, "agreeing": 5}
    assert found["agrees"]["steps=2"]


def test_a_margin_is_twice_the_rms_of_what_other_noise_does_to_a_difference():
    found = samplers.compare(figures(), 0.5, 1.0)
    assert found["margins"] == pytest.approx(dict.fromkeys(COLUMNS, 2 * 0.1 * 0.5**0.5))
    assert found["ranked"][REFERENCE]["retain PSNR"]["pairs"] == 5, "a and c are 0.1 dB apart"
    assert found["ranked"][REFERENCE]["forget PSNR"]["pairs"] == 6
    assert found["agrees"] == {REFERENCE: True, AGAIN: True}


@pytest.mark.parametrize(
    ("other", "verdict", "order"),
    [
        (rows(a=(19.7, 12.0), b=(18.0, 15.0), c=(19.8, 19.5)), True, True),  # a, c within noise
        (rows(a=(19.8, 12.0), b=(19.6, 15.0), c=(19.7, 19.5)), False, True),  # b kept the side
        (rows(a=(19.8, 15.0), b=(18.0, 12.0), c=(19.7, 19.5)), True, False),  # a, b changed places
    ],
)
def test_a_sampler_agrees_in_verdicts_and_order(other, verdict, order):
    found = samplers.compare(figures(n2=other), 0.5, 1.0)
    settled = found["settled"]["steps=2"]
    assert settled["pairs"] == 6
    assert (settled["agreeing"] == 6) == verdict
    pairs = found["ranked"]["steps=2"].values()
    assert all(cell["agreeing"] == cell["pairs"] for cell in pairs) == order
    assert found["agrees"]["steps=2"] == (verdict and order)


@pytest.mark.parametrize(
    ("agrees", "begins"),
    [
        ((True, True, True), "From steps=1 on all 6 settled verdicts and 22 distinguishable pairs"),
        ((True, False, True), "From steps=10 on all"),  # one step agrees by luck
        ((False, True, True), "From steps=2 on all"),
        ((True, True, False), "There is no number of steps from which on all 6 settled"),
    ],
)
def test_the_last_line(agrees, begins):
    found = samplers.compare(figures(), 0.5, 1.0)
    known = dict(zip(STEPS, agrees, strict=True)) | {REFERENCE: True, AGAIN: False}
    line = samplers.conclusion(STEPS, found | {"agrees": known})
    assert line.startswith(begins)
    assert line.endswith("DDPM with other noise does not agree.")
    assert samplers.conclusion({}, found).endswith("noise agrees.")


def test_the_tables_are_markdown():
    few = rows(a=(19.8, 15.0), b=(18.0, 12.0), c=(18.7, 19.5))
    given = figures(n1=few)
    text = samplers.tables(given, samplers.compare(given, 0.5, 1.0))
    assert f"| retain PSNR | steps=1 | {REFERENCE} | {AGAIN} |" in text
    assert "| c | 18.7 | 19.7 | 19.8 |" in text
    assert "| c | not kept, not forgot | kept, not forgot | kept, not forgot |" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| steps=1 ")]
    assert (
        line
        == "| steps=1 | 1.0; 5 of 5 | 1.0; 5 of 5 | 0.667; 5 of 6 | 0.667; 5 of 6 | 5 of 6 | 0.5 |"
    )


def test_images_are_drawn_evenly_over_classes():
    labels = np.array([0] * 20 + [1] * 3 + [2] * 10, np.int32)
    keys = [f"{i:02d}" for i in range(len(labels))]
    source = Source(keys, labels, ("x", "y", "z"), lambda i: None)
    split = splits.pick("retain_eval", "eval", source, np.arange(1, len(labels)))
    some = samplers.subset(split, source, 11, 0)
    assert np.bincount(labels[some.indices]).tolist() == [4, 3, 4]
    assert set(some.keys) <= set(split.keys)
    assert some.digest == samplers.subset(split, source, 11, 0).digest
    assert some.digest != samplers.subset(split, source, 11, 1).digest
    assert samplers.subset(split, source, 99, 0).digest == split.digest


def test_it_continues_from_an_out_file_of_the_same_images_and_models(tmp_path):
    out, about = tmp_path / "x.json", {"seed": 0, "images": {"retain_eval": [4, "ab"]}}
    empty = samplers.read_record(out, about, {"a": "1"})
    assert empty == {"about": about, "models": {"a": "1"}, "figures": {}}
    files.write_json(out, empty | {"figures": {REFERENCE: REAL}, "conclusion": "of less"})
    more = samplers.read_record(out, about, {"b": "2"})
    assert more == empty | {"models": {"a": "1", "b": "2"}, "figures": {REFERENCE: REAL}}
    with pytest.raises(ConfigError, match=r"name another --out: its models/a is 3, not 1\."):
        samplers.read_record(out, about, {"a": "3"})
    with pytest.raises(ConfigError, match=r"its images/retain_eval is \[5, 'ab'\], not \[4"):
        samplers.read_record(out, about | {"images": {"retain_eval": [5, "ab"]}}, {"a": "1"})


# Runs --------------------------------------------------------------------------------------------


def config_of(rate=1e-3, **changes):
    args = find("model", "diffusion").SMALLEST
    config = small_config(model=dict(name="diffusion", args=args), **changes)
    config.unlearn.update(dict(steps=2, optimizer=dict(lr=rate, warmup=0.0)))
    config.evaluators = dict(reconstruction=dict(grids=False))
    return complete_config(config)


def finish(folder, config):
    """Makes a workdir look like that of an evaluated run."""
    files.write_json(folder / "config.json", config)
    files.write_json(folder / "results.json", {"steps": {"unlearn": [2, 2]}})
    (folder / "report.html").write_text(page.with_digest(""))


def make(root):
    """Two runs of one original; one has the name of a variant that Completer knows."""
    for name, config in (("a", config_of()), ("retrained", config_of(rate=3e-2))):
        config["runtime"]["begin_from"] = str(root / "a") if name != "a" else ""
        ready = preflight(resolve(config), root / name, StopSignal())
        reuse.reuse_phases(ready)
        run_phases(ready, train)
        finish(root / name, config)


@pytest.mark.slow
def test_two_runs_by_every_sampler(tmp_path, capsys, monkeypatch):
    """Figures that --out already holds are not measured again."""
    runs, out = once("samplers", make), tmp_path / "x.json"
    read_record = samplers.read_record
    there = {name: {**REAL["a"], "seconds": 9.0} for name in (ORIGINAL, "a", "retrained")}
    done = {"figures": {"steps=1": there}}
    monkeypatch.setattr(samplers, "read_record", lambda *a: read_record(*a) | done)
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    words = [str(runs / "a"), str(runs / "retrained"), "--steps", "1,2", "--images", "4"]
    samplers.main([*words, "--out", str(out)])
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before, "only read"
    record, printed = files.read_json(out), capsys.readouterr()
    assert record["figures"].keys() == {"steps=1", "steps=2", REFERENCE, AGAIN}
    for found in record["figures"].values():
        assert found.keys() == {ORIGINAL, "a", "retrained"}
        for row in found.values():
            assert {*COLUMNS, "seconds"} <= row.keys()
            assert all(np.isfinite(value) and value > 0 for value in row.values())
    first, again, few = (record["figures"][name] for name in (REFERENCE, AGAIN, "steps=2"))
    for name in first:
        assert first[name]["retain PSNR"] != again[name]["retain PSNR"], "other noise"
        assert first[name]["retain PSNR"] != few[name]["retain PSNR"]
        assert first[name]["retain PSNR"] == pytest.approx(again[name]["retain PSNR"], abs=2)
    assert len({row["retain PSNR"] for row in first.values()}) == 3, "three models"
    assert {name: record["figures"]["steps=1"][name] for name in there} == there
    assert printed.err.count(" min left") == 3 * 3
    assert printed.out.rstrip().endswith(record["conclusion"])
    assert [count for count, _ in record["about"]["images"].values()] == [4, 4]


@pytest.fixture
def refused(monkeypatch, tmp_path):
    """A check that workdirs "one" and "other", of another config or original, are refused."""

    def check(message, config, original="ab"):
        for name, made in (("one", config_of()), ("other", config)):
            finish(tmp_path / name, made)
            files.write_json(tmp_path / name / "splits" / "retain.json", {"digest": "ab"})
        originals = {"one": "ab", "other": original}
        monkeypatch.setattr(
            samplers, "final_weights", lambda folder: weights(originals[folder.name])
        )
        with pytest.raises(ConfigError, match=message):
            samplers.load([tmp_path / "one", tmp_path / "other"])

    return check


def weights(original):
    return SimpleNamespace(about={"source": {"original": original}})


def test_other_originals_are_refused(refused):
    refused(r"other cannot be compared with .*one: its original is cd, not ab\.", config_of(), "cd")


@pytest.mark.parametrize(
    ("message", "key", "value"),
    [
        ("its task/name is random, not center", "evaluate", dict(tasks=("random",), batch_size=8)),
        ("is a run of mae", "model", dict(name="mae", args=dict())),
        ("its data/args/size is 8, not 16", "data", dict(args=dict(size=8))),
        ("its model/beta_end is 0.1, not 0.5", "model", dict(args=dict(beta_end=0.1))),
    ],
)
def test_other_configs_are_refused(refused, message, key, value):
    config = config_of()
    refused(message, config | {key: merge_args(config[key], value)})


def test_samplers_may_differ_and_runs_are_finished_and_have_names(monkeypatch, tmp_path):
    for name, sampler in (("one", {}), ("other", dict(sampler="ddpm", sample_steps=0))):
        config = config_of()
        config["model"]["args"].update(sampler)
        finish(tmp_path / name, config)
        files.write_json(tmp_path / name / "splits" / "retain.json", {"digest": "ab"})
    monkeypatch.setattr(samplers, "final_weights", lambda folder: weights("ab"))
    assert samplers.load([tmp_path / "one", tmp_path / "other"])[2].keys() == {"one", "other"}
    with pytest.raises(ConfigError, match="'one' is taken"):
        samplers.load([tmp_path / "one", tmp_path / "one"])
    (tmp_path / "other" / "splits" / "retain.json").write_text('{"digest": "cd"}')
    with pytest.raises(ConfigError, match="its splits/retain is cd, not ab"):
        samplers.load([tmp_path / "one", tmp_path / "other"])
    (tmp_path / "other" / "report.html").unlink()
    with pytest.raises(ConfigError, match="other is not finished"):
        samplers.load([tmp_path / "one", tmp_path / "other"])
    with pytest.raises(ConfigError, match="holds no run"):
        samplers.load([tmp_path / "none"])


def test_steps_and_images_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="take 1 to 10"):
        samplers.with_sampler(SimpleNamespace(plan=resolve(config_of())), "steps=11", 11)
    for words in (["--images", "1"], ["--steps", "1,x"], ["--steps=-1"]):
        with pytest.raises(ConfigError, match="--images is 2 or more"):
            samplers.main([str(tmp_path), "--out", "x.json", *words])
