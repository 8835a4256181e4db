"""Phases reused from another workdir: the same bits as alone, or not reused at all."""

import dataclasses
import logging
import os
import shutil

import pytest

from l2l_jax.engine import reuse
from l2l_jax.engine.outcome import run_phases
from l2l_jax.engine.plan import complete_config, resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.engine.run import run
from l2l_jax.engine.train import train
from l2l_jax.lib import files, hosts
from l2l_jax.lib.errors import ConfigError, NotSaved
from l2l_jax.lib.preemption import StopSignal
from l2l_jax.workdir import claim as workdirs
from l2l_jax.workdir.layout import Workdir
from tests.helpers import assert_same_bits, params_of, small_config

EVERY = [("pretrain", i) for i in range(2)] + [("unlearn", i) for i in range(6)]
TIMES = ("seconds", "data_wait", "examples_per_second", "flops_per_second")


@pytest.fixture(scope="module", autouse=True)
def _the_code_stands_still():
    """Files that somebody edits during the tests would be another code."""
    with pytest.MonkeyPatch.context() as patch:
        digest = files.code_digest()
        patch.setattr(files, "code_digest", lambda: digest)
        yield


def config_with(alpha=0.25, begin_from="", **changes):
    config = small_config(**changes)
    config.unlearn.solver_args = dict(alpha=alpha)
    config.evaluators = dict(reconstruction=dict())
    config.runtime.begin_from = str(begin_from)
    return config


def prepared(config, workdir):
    return preflight(resolve(config), workdir, StopSignal())


def trained(config, workdir):
    """What run.run does, without the evaluation."""
    experiment = prepared(config, workdir)
    reuse.reuse_phases(experiment)
    run_phases(experiment, train)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The workdir of a run that others begin from."""
    workdir = tmp_path_factory.mktemp("source") / "run"
    trained(config_with(), workdir)
    notes = workdir / "phases.json"
    there = files.read_json(notes) if notes.exists() else {}
    pretrain = there.get("pretrain", {}) | {"found": 1}
    files.write_json(notes, {"unlearn": {"found": 2}} | there | {"pretrain": pretrain})
    return workdir


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The workdir of a run with another alpha that did everything by itself."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    run(config_with(alpha=0.5), workdir)
    return workdir


@pytest.fixture(scope="module")
def waiting(tmp_path_factory):
    """An experiment that is ready and has done nothing."""
    return prepared(config_with(alpha=0.5), tmp_path_factory.mktemp("waiting") / "run")


def at(experiment, folder, config=None):
    """The experiment in another folder, or with another config."""
    plan = dataclasses.replace(experiment.plan, config=config or experiment.config)
    return dataclasses.replace(experiment, workdir=Workdir(folder), plan=plan)


def beginning_from(experiment, folder):
    runtime = experiment.config["runtime"] | {"begin_from": str(folder)}
    plan = dataclasses.replace(experiment.plan, config={**experiment.config, "runtime": runtime})
    return dataclasses.replace(experiment, plan=plan)


def metrics_of(workdir):
    """All records, without what a clock says."""
    return [{key: value for key, value in record.items() if key not in TIMES}
            for record in files.read_jsonl(workdir / "metrics.jsonl")]  # fmt: skip


def assert_like(workdir, alone):
    assert_same_bits(params_of(workdir), params_of(alone))
    assert metrics_of(workdir) == metrics_of(alone)
    assert [(r["phase"], r["step"]) for r in metrics_of(workdir)] == EVERY


@pytest.mark.slow
def test_the_run_ends_at_the_bits_of_a_run_alone(source, alone, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    workdir = tmp_path / "run"
    run(config_with(alpha=0.5, begin_from=source), workdir)
    assert f"pretrain: reused from {source}" in caplog.text
    assert "pretrain: done already" in caplog.text
    assert_like(workdir, alone)
    results, theirs = (files.read_json(w / "results.json") for w in (workdir, alone))
    for key in ("tasks", "digests", "steps", "trained_on"):
        assert results[key] == theirs[key]
    assert files.read_json(workdir / "phases.json")["pretrain"]["found"] == 1
    ours, theirs = (w / "checkpoints" / "pretrain" / "2" for w in (workdir, source))
    inodes = [{p.relative_to(w): p.stat().st_ino for p in w.rglob("*") if p.is_file()}
              for w in (ours, theirs)]  # fmt: skip
    assert inodes[0] == inodes[1], "nothing is there twice"
    assert not list((workdir / "checkpoints").glob(".*"))
    shutil.rmtree(workdir / "checkpoints")
    assert (theirs / "_CHECKPOINT_METADATA").exists(), "removing a name removes no file"


@pytest.mark.slow
def test_all_phases_may_be_the_same(source, tmp_path):
    """Only what is evaluated differs: nothing is left to train."""
    config = config_with(begin_from=source)
    config.evaluate.tasks = ("random",)
    experiment = prepared(config, tmp_path / "run")
    assert reuse.reuse_phases(experiment) == ["pretrain", "unlearn"]
    assert_same_bits(params_of(tmp_path / "run"), params_of(source))
    assert metrics_of(tmp_path / "run") == metrics_of(source)
    assert reuse.reuse_phases(experiment) == [], "once"


def changed(name, change):
    """Changes a JSON file of a workdir."""

    def apply(folder):
        path = folder / name
        value = files.read_json(path)
        change(value)
        files.write_json(path, value)

    return apply


def shorten(folder):
    path = max((folder / "checkpoints/pretrain/2").rglob("*"), key=os.path.getsize)
    path.write_bytes(path.read_bytes()[:10])


def config(change):
    return changed("config.json", change)


def versions(change):
    return changed("versions.json", change)


DIFFERENCES = {
    "reference changed": (
        lambda folder: files.write_json(folder / "reference.json", {"digest": "abc"}),
        "the digest of the reference is 'abc' there, None here",
    ),
    "seed": (config(lambda c: c.update(seed=1)), "seed is 1 there, 0 here"),
    "weights": (config(lambda c: c.update(weights="a.pth")), "weights is 'a.pth' there, '' here"),
    "original": (
        lambda folder: files.write_json(folder / "original.json", {"digest": "abc"}),
        "the digest of the weights is 'abc' there, None here",
    ),
    "model": (config(lambda c: c["model"]["args"].update(heads=99)), "model.args.heads is 99"),
    "data": (config(lambda c: c["data"].update(flip=True)), "data.flip is True there, False here"),
    "split": (config(lambda c: c["split"].update(seed=7)), "split.seed is 7 there, 0 here"),
    "keys": (
        changed("splits/forget.json", lambda s: s.update(digest="abc")),
        "the digest of the split.forget is 'abc' there",
    ),
    "fewer splits": (
        lambda folder: (folder / "splits/forget.json").unlink(),
        "the digest of the split.forget is None there",
    ),
    "task": (
        config(lambda c: c["tasks"]["random"]["args"].update(ratio=0.5)),
        "tasks.random.args.ratio is 0.5 there, 0.75 here",
    ),
    "settings": (
        config(lambda c: c["pretrain"]["optimizer"].update(lr=1)),
        "pretrain.optimizer.lr is 1 there, 0.001 here",
    ),
    "order": (
        config(lambda c: c.update(phases=["unlearn", "pretrain"])),
        "phases is ['unlearn'] there, ['pretrain'] here",
    ),
    "reference": (config(lambda c: c.update(reference="x")), "reference is 'x' there, '' here"),
    "fsdp": (config(lambda c: c["runtime"].update(fsdp=4)), "runtime.fsdp is 4 there, 1 here"),
    "code": (versions(lambda v: v.update(code="abc")), "code is 'abc' there"),
    "later code": (
        versions(lambda v: v.update(continued_with=[{**v, "code": "abc"}])),
        "code is 'abc' there",
    ),
    "packages": (versions(lambda v: v["packages"].update(jax="0")), "packages.jax is '0' there"),
    "devices": (versions(lambda v: v.update(devices="1 x cpu")), "devices is '1 x cpu' there"),
    "unfinished": (
        lambda folder: shutil.rmtree(folder / "checkpoints/pretrain/2"),
        "pretrain is not finished there",
    ),
    "damaged": (shorten, "checkpoints/pretrain/2 is damaged"),
}


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_at_any_difference_nothing_is_reused(kind, source, waiting, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    change, reason = DIFFERENCES[kind]
    there = shutil.copytree(source, tmp_path / "there")
    change(there)
    assert reuse.reuse_phases(beginning_from(waiting, there)) == []
    (line,) = [message for message in caplog.messages if "reused from" in message]
    assert line.startswith(f"nothing is reused from {there}: ")
    assert reason in line
    assert not (waiting.workdir.folder / "checkpoints").exists()
    assert not waiting.workdir.metrics.exists()


def test_what_makes_no_difference(source, waiting, tmp_path):
    """What only later phases, the evaluation or the machine see."""
    there = shutil.copytree(source, tmp_path / "there")

    def change(c):
        c["runtime"].update(save_every=7, threads=1)
        c["tasks"]["center"]["args"].update(cells=1)
        c["unlearn"].update(steps=99)
        c["evaluators"] = {}

    config(change)(there)
    here = shutil.copytree(waiting.workdir.folder, tmp_path / "here")
    experiment = beginning_from(at(waiting, here), there)
    assert reuse.reuse_phases(experiment) == ["pretrain"]


def test_a_phase_that_found_its_own_end_is_finished(source, waiting, tmp_path):
    """It has fewer steps than the config gives it, and its last record says so."""
    there = shutil.copytree(source, tmp_path / "there")
    here = shutil.copytree(waiting.workdir.folder, tmp_path / "here")
    longer = {**waiting.config, "pretrain": waiting.config["pretrain"] | {"steps": 9}}
    config(lambda c: c["pretrain"].update(steps=9))(there)
    experiment = at(waiting, here, config=longer)
    experiment = beginning_from(experiment, there)
    assert reuse.reuse_phases(experiment) == [], "two of nine steps"
    with (there / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "unlearn", "step": 1, "ended": 1.0}\n')
        file.write('{"phase": "pretrain", "step": 1, "ended": 0.0}\n')
    assert reuse.reuse_phases(experiment) == []
    with (there / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "pretrain", "step": 1, "ended": 1.0}\n')
    assert reuse.reuse_phases(experiment) == ["pretrain"]
    assert reuse.done(here, "pretrain", 9)


def test_a_phase_that_has_begun_here_goes_on_here(source, waiting, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    here = shutil.copytree(waiting.workdir.folder, tmp_path / "here")
    unlearn = waiting.config["unlearn"] | {"solver_args": {"alpha": 0.25}}
    same = at(waiting, here, config={**waiting.config, "unlearn": unlearn})
    experiment = beginning_from(same, source)
    (here / "checkpoints" / "pretrain" / "1").mkdir(parents=True)
    assert reuse.reuse_phases(experiment) == [], "nor what comes after it"
    assert "pretrain has checkpoints here" in caplog.text
    (here / "checkpoints" / "pretrain" / "1").rename(here / "checkpoints" / "pretrain" / "x")
    assert reuse.reuse_phases(experiment) == ["pretrain", "unlearn"], "a save cut short is none"


def killed_at(file_number, monkeypatch):
    """Lets the process die at this file of a checkpoint, with no chance to tidy up."""
    seen = []

    def link(a, b):
        seen.append(b)
        if len(seen) > file_number:
            raise KeyboardInterrupt
        os.link(a, b)

    monkeypatch.setattr(reuse, "_link_file", link)


@pytest.mark.slow
def test_a_kill_in_the_middle_leaves_nothing_half(source, alone, tmp_path, monkeypatch, caplog):
    """Afterwards the phase can be reused again, or be done here after all."""
    caplog.set_level(logging.INFO)
    workdir, other = tmp_path / "run", tmp_path / "other"
    with monkeypatch.context() as patch:
        killed_at(3, patch)
        with pytest.raises(KeyboardInterrupt):
            trained(config_with(alpha=0.5, begin_from=source), workdir)
    (left_over,) = (workdir / "checkpoints").iterdir()
    assert left_over.name == ".pretrain.reusing"
    shutil.copytree(workdir, other)
    trained(config_with(alpha=0.5, begin_from=source), workdir)
    assert "pretrain: done already" in caplog.text
    caplog.clear()
    trained(config_with(alpha=0.5), other)
    assert "pretrain: done already" not in caplog.text
    for folder in (workdir, other):
        assert_like(folder, alone)
        assert {p.name for p in (folder / "checkpoints").iterdir()} == {"pretrain", "unlearn"}


def test_where_files_cannot_be_linked_they_are_copied(source, waiting, tmp_path, monkeypatch):
    def refuse(a, b):
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    here = shutil.copytree(waiting.workdir.folder, tmp_path / "here")
    experiment = beginning_from(at(waiting, here), source)
    assert reuse.reuse_phases(experiment) == ["pretrain"]
    path = "checkpoints/pretrain/2/_CHECKPOINT_METADATA"
    assert (here / path).read_bytes() == (source / path).read_bytes()
    assert (here / path).stat().st_ino != (source / path).stat().st_ino


def test_what_cannot_be_begun_from_is_an_error(source, waiting, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"nowhere holds no run"):
        reuse.reuse_phases(beginning_from(waiting, tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="is this workdir itself"):
        reuse.reuse_phases(beginning_from(waiting, waiting.workdir.folder))

    def full(a, b, **_):
        raise OSError(28, "No space left on device")

    here = shutil.copytree(waiting.workdir.folder, tmp_path / "here")
    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(NotSaved, match=r"pretrain could not be reused .*No space left"):
        reuse.reuse_phases(beginning_from(at(waiting, here), source))


def test_only_the_first_process_writes(source, waiting, monkeypatch):
    monkeypatch.setattr(hosts, "is_main", lambda: False)
    assert reuse.reuse_phases(beginning_from(waiting, source)) == []
    assert not (waiting.workdir.folder / "checkpoints").exists()


def test_begin_from_may_change_between_launches(source):
    """It is how a run is done, not what it is."""
    workdirs.check_config_matches(
        source, files.as_json(complete_config(config_with(begin_from="elsewhere")))
    )
