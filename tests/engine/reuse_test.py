"""Phases reused from another workdir: bit-identical results, or nothing is reused."""

import dataclasses
import logging
import os
import shutil

import pytest

from l2l_jax.engine import reuse
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.outcome import run_phases
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.engine.run import run
from l2l_jax.engine.train import train
from l2l_jax.lib import files, hosts
from l2l_jax.lib.errors import ConfigError, Damaged, NotSaved
from l2l_jax.lib.preemption import StopSignal
from l2l_jax.workdir import claim as workdirs
from l2l_jax.workdir.layout import Workdir
from tests.helpers import assert_same_bits, params_of, small_config

pytestmark = pytest.mark.slow  # the first test makes what the others need

ALL_STEPS = [("pretrain", i) for i in range(2)] + [("unlearn", i) for i in range(6)]
TIMES = ("seconds", "data_wait", "examples_per_second", "flops_per_second")


@pytest.fixture(scope="module", autouse=True)
def _constant_code_digest():
    """Edits of the source files during the tests must not change the digest of the code."""
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


def prepare(config, workdir):
    return preflight(resolve(config), workdir, StopSignal())


def train_phases(config, workdir):
    """Does what run.run does, without evaluation and report."""
    experiment = prepare(config, workdir)
    reuse.reuse_phases(experiment)
    run_phases(experiment, train)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The workdir of a run from which other runs begin."""
    workdir = tmp_path_factory.mktemp("source") / "run"
    train_phases(config_with(), workdir)
    notes = workdir / "phases.json"
    written = files.read_json(notes) if notes.exists() else {}
    pretrain = written.get("pretrain", {}) | {"found": 1}
    files.write_json(notes, {"unlearn": {"found": 2}} | written | {"pretrain": pretrain})
    return workdir


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The workdir of a run with another alpha that reused nothing."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    run(config_with(alpha=0.5), workdir)
    return workdir


@pytest.fixture(scope="module")
def unstarted(tmp_path_factory):
    """An experiment that passed its checks and has run no step."""
    return prepare(config_with(alpha=0.5), tmp_path_factory.mktemp("unstarted") / "run")


def moved_to(folder, experiment, config=None):
    """Returns the experiment in another folder, or also with another config."""
    plan = resolve(config) if config else experiment.plan
    return dataclasses.replace(experiment, workdir=Workdir(folder), plan=plan)


def beginning_from(experiment, folder):
    runtime = experiment.config["runtime"] | {"begin_from": str(folder)}
    plan = dataclasses.replace(experiment.plan, config={**experiment.config, "runtime": runtime})
    return dataclasses.replace(experiment, plan=plan)


def metrics_of(workdir):
    """Returns all records of metrics.jsonl without the values that depend on time."""
    return [{key: value for key, value in record.items() if key not in TIMES}
            for record in files.read_jsonl(workdir / "metrics.jsonl")]  # fmt: skip


def assert_same_run(workdir, alone):
    assert_same_bits(params_of(workdir), params_of(alone))
    assert metrics_of(workdir) == metrics_of(alone)
    assert [(r["phase"], r["step"]) for r in metrics_of(workdir)] == ALL_STEPS


def test_a_reusing_run_equals_a_run_alone(source, alone, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    workdir = tmp_path / "run"
    run(config_with(alpha=0.5, begin_from=source), workdir)
    assert f"pretrain: reused from {source}" in caplog.text
    assert "pretrain: done already" in caplog.text
    assert_same_run(workdir, alone)
    results, theirs = (files.read_json(w / "results.json") for w in (workdir, alone))
    for key in ("tasks", "digests", "steps", "trained_on"):
        assert results[key] == theirs[key]
    assert files.read_json(workdir / "phases.json")["pretrain"]["found"] == 1
    ours, theirs = (w / "checkpoints" / "pretrain" / "2" for w in (workdir, source))
    inodes = [{p.relative_to(w): p.stat().st_ino for p in w.rglob("*") if p.is_file()}
              for w in (ours, theirs)]  # fmt: skip
    assert inodes[0] == inodes[1], "files are linked, not copied"
    assert not list((workdir / "checkpoints").glob(".*"))
    shutil.rmtree(workdir / "checkpoints")
    assert (theirs / "_CHECKPOINT_METADATA").exists(), (
        "removing the links keeps the files of the source"
    )


def test_all_phases_may_be_the_same(source, tmp_path):
    """Only the evaluation differs, so nothing is left to train."""
    config = config_with(begin_from=source)
    config.evaluate.tasks = ("random",)
    experiment = prepare(config, tmp_path / "run")
    assert reuse.reuse_phases(experiment) == ["pretrain", "unlearn"]
    assert_same_bits(params_of(tmp_path / "run"), params_of(source))
    assert metrics_of(tmp_path / "run") == metrics_of(source)
    assert reuse.reuse_phases(experiment) == [], "phases are reused only once"


def changed(name, change):
    """Returns a function of a workdir that changes the JSON file of that name."""

    def apply(folder):
        path = folder / name
        value = files.read_json(path)
        change(value)
        files.write_json(path, value)

    return apply


def cut_checkpoint(folder):
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
    "damaged": (cut_checkpoint, "checkpoints/pretrain/2 is damaged"),
}


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_at_any_difference_nothing_is_reused(kind, source, unstarted, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    change, reason = DIFFERENCES[kind]
    other = shutil.copytree(source, tmp_path / "other")
    change(other)
    assert reuse.reuse_phases(beginning_from(unstarted, other)) == []
    (line,) = [message for message in caplog.messages if "reused from" in message]
    assert line.startswith(f"nothing is reused from {other}: ")
    assert reason in line
    assert not (unstarted.workdir.folder / "checkpoints").exists()
    assert not unstarted.workdir.metrics.exists()


def test_a_lost_split_of_the_other_run_is_named(source, unstarted, tmp_path):
    other = shutil.copytree(source, tmp_path / "other")
    (other / "splits/forget.json").unlink()
    with pytest.raises(Damaged, match=r"other/splits/forget\.json is missing"):
        reuse.reuse_phases(beginning_from(unstarted, other))
    assert not (unstarted.workdir.folder / "checkpoints").exists()


def test_differences_that_do_not_matter(source, unstarted, tmp_path):
    """Settings that only change later phases, the evaluation or how a run is executed."""
    other = shutil.copytree(source, tmp_path / "other")

    def change(c):
        c["runtime"].update(save_every=7, threads=1)
        c["tasks"]["center"]["args"].update(cells=1)
        c["unlearn"].update(steps=99)
        c["evaluators"] = {}

    config(change)(other)
    here = shutil.copytree(unstarted.workdir.folder, tmp_path / "here")
    experiment = beginning_from(moved_to(here, unstarted), other)
    assert reuse.reuse_phases(experiment) == ["pretrain"]


def test_a_phase_that_ended_by_itself_is_finished(source, unstarted, tmp_path):
    """It has fewer steps than the config sets, and its last record has ended=1."""
    other = shutil.copytree(source, tmp_path / "other")
    here = shutil.copytree(unstarted.workdir.folder, tmp_path / "here")
    longer = {**unstarted.config, "pretrain": unstarted.config["pretrain"] | {"steps": 9}}
    config(lambda c: c["pretrain"].update(steps=9))(other)
    experiment = moved_to(here, unstarted, config=longer)
    experiment = beginning_from(experiment, other)
    assert reuse.reuse_phases(experiment) == [], "only two of nine steps are done"
    with (other / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "unlearn", "step": 1, "ended": 1.0}\n')
        file.write('{"phase": "pretrain", "step": 1, "ended": 0.0}\n')
    assert reuse.reuse_phases(experiment) == []
    with (other / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "pretrain", "step": 1, "ended": 1.0}\n')
    assert reuse.reuse_phases(experiment) == ["pretrain"]
    assert reuse.done(here, "pretrain", 9)


def test_a_phase_with_checkpoints_here_is_not_replaced(source, unstarted, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    here = shutil.copytree(unstarted.workdir.folder, tmp_path / "here")
    unlearn = unstarted.config["unlearn"] | {"solver_args": {"alpha": 0.25}}
    same = moved_to(here, unstarted, config={**unstarted.config, "unlearn": unlearn})
    experiment = beginning_from(same, source)
    (here / "checkpoints" / "pretrain" / "1").mkdir(parents=True)
    assert reuse.reuse_phases(experiment) == [], "neither it nor the phases after it"
    assert "pretrain has checkpoints here" in caplog.text
    (here / "checkpoints" / "pretrain" / "1").rename(here / "checkpoints" / "pretrain" / "x")
    assert reuse.reuse_phases(experiment) == ["pretrain", "unlearn"], (
        "an incomplete checkpoint does not count"
    )


def kill_after(count, monkeypatch):
    """Raises KeyboardInterrupt after `count` files of a checkpoint are linked."""
    linked = []

    def link(a, b):
        linked.append(b)
        if len(linked) > count:
            raise KeyboardInterrupt
        os.link(a, b)

    monkeypatch.setattr(reuse, "_link_file", link)


def test_a_kill_leaves_no_incomplete_phase(source, alone, tmp_path, monkeypatch, caplog):
    """Afterwards the phase can be reused again, or trained in this workdir."""
    caplog.set_level(logging.INFO)
    workdir, other = tmp_path / "run", tmp_path / "other"
    with monkeypatch.context() as patch:
        kill_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            train_phases(config_with(alpha=0.5, begin_from=source), workdir)
    (remainder,) = (workdir / "checkpoints").iterdir()
    assert remainder.name == ".pretrain.reusing"
    shutil.copytree(workdir, other)
    train_phases(config_with(alpha=0.5, begin_from=source), workdir)
    assert "pretrain: done already" in caplog.text
    caplog.clear()
    train_phases(config_with(alpha=0.5), other)
    assert "pretrain: done already" not in caplog.text
    for folder in (workdir, other):
        assert_same_run(folder, alone)
        assert {p.name for p in (folder / "checkpoints").iterdir()} == {"pretrain", "unlearn"}


def test_where_files_cannot_be_linked_they_are_copied(source, unstarted, tmp_path, monkeypatch):
    def refuse(a, b):
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    here = shutil.copytree(unstarted.workdir.folder, tmp_path / "here")
    experiment = beginning_from(moved_to(here, unstarted), source)
    assert reuse.reuse_phases(experiment) == ["pretrain"]
    path = "checkpoints/pretrain/2/_CHECKPOINT_METADATA"
    assert (here / path).read_bytes() == (source / path).read_bytes()
    assert (here / path).stat().st_ino != (source / path).stat().st_ino


def test_invalid_begin_from_is_an_error(source, unstarted, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"nowhere holds no run"):
        reuse.reuse_phases(beginning_from(unstarted, tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="is this workdir itself"):
        reuse.reuse_phases(beginning_from(unstarted, unstarted.workdir.folder))

    def full(a, b, **_):
        raise OSError(28, "No space left on device")

    here = shutil.copytree(unstarted.workdir.folder, tmp_path / "here")
    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(NotSaved, match=r"pretrain could not be reused .*No space left"):
        reuse.reuse_phases(beginning_from(moved_to(here, unstarted), source))


def test_only_the_first_process_writes(source, unstarted, monkeypatch):
    monkeypatch.setattr(hosts, "is_main", lambda: False)
    assert reuse.reuse_phases(beginning_from(unstarted, source)) == []
    assert not (unstarted.workdir.folder / "checkpoints").exists()


def test_begin_from_may_change_between_launches(source):
    """It changes how a run is executed, not its results."""
    workdirs.check_config_matches(
        source, files.as_json(complete_config(config_with(begin_from="elsewhere")))
    )
