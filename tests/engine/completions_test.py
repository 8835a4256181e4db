"""Several feature networks in one run; missing and untrained networks are named."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from l2l_jax.data import splits
from l2l_jax.engine import completions, networks
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.run import evaluate_again, run
from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, WrongWeights
from l2l_jax.report.collect import collect
from l2l_jax.report.compare import compared as page_of
from l2l_jax.report.compare import markdown
from l2l_jax.types import Source
from tests.helpers import DAMAGE, once, small_config, trained

NETWORKS = dict(
    tiny=dict(name="clip", args=dict(size="tiny")),
    gone=dict(name="inception", args=dict(weights="/nowhere/inception.pth")),
)
EVALUATORS = dict(
    fid=dict(),
    kid=dict(network="tiny"),
    clip=dict(evaluator="cosine", network="tiny"),
    is_gone=dict(evaluator="inception_score", network="gone"),
)


def make_config(**changes):
    config = small_config(networks=NETWORKS, **changes)
    config.evaluators = EVALUATORS
    return config


@pytest.fixture(scope="module")
def workdir():
    return once("networks", lambda folder: run(make_config(), folder))


@pytest.mark.slow
def test_each_figure_comes_from_its_network(workdir):
    results = files.read_json(workdir / "results.json")
    for side in ("retain", "forget"):
        assert results["unlearned"][side].keys() == {"fid", "kid", "clip"}
        assert -1 <= results["unlearned"][side]["clip"] <= 1
    assert results["measured"]["clip"] == {"evaluator": "cosine", "network": "tiny"}
    assert results["measured"]["fid"]["network"] == "main"
    assert results["networks"].keys() == {"main", "tiny"}
    assert results["networks"]["tiny"]["resize"] == "pillow, 56x56"
    assert len(results["networks"]["tiny"]["digest"]) == 64


@pytest.mark.slow
def test_figures_of_a_missing_network_are_skipped_and_listed(workdir):
    results = files.read_json(workdir / "results.json")
    assert results["skipped"] == {"is_gone": "There is no file /nowhere/inception.pth."}
    page = (workdir / "report.html").read_text()
    assert "Not measured: is_gone. There is no file /nowhere/inception.pth." in page


@pytest.mark.slow
def test_random_weights_are_marked_on_the_page(workdir):
    text = (workdir / "report.html").read_text()
    assert "nobody trained the networks that measure cosine (clip), KID." in text
    assert text.count("<small>random weights</small>") == 4, "of two tables"
    assert "<td>FID</td>" in text
    both = [collect(workdir)] * 2
    assert page_of(both, {}).count("(random weights)") == 8, "two figures of two sides, twice"
    header = markdown(both, ["fid", "kid"]).splitlines()[0]
    assert "retain FID ↓" in header
    assert "retain KID (random weights) ↓" in header


@pytest.mark.slow
def test_features_are_kept_for_a_second_evaluation(workdir, tmp_path, monkeypatch):
    """A second evaluation runs the unlearned model only and gives the same figures."""
    shutil.copytree(workdir, tmp_path / "run")
    completed, over_batches = [], completions.Completer.over_batches

    def recorded(self, side, program):
        completed.append(side)
        return over_batches(self, side, program)

    monkeypatch.setattr(completions.Completer, "over_batches", recorded)
    evaluate_again(tmp_path / "run")
    assert sorted(completed) == ["forget", "forget_train", "retain"]
    before, after = (files.read_json(path / "results.json") for path in (workdir, tmp_path / "run"))
    assert json.dumps(before["tasks"]) == json.dumps(after["tasks"])


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_completions_are_made_again(damage, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("L2L_CACHE", str(tmp_path))
    config = dict(tasks={}, model="mae", data="fake", evaluate=dict(batch_size=4))
    source = Source(("a",), np.zeros(1, np.int32), ("all",), lambda at: None, stamp=str)
    split = splits.pick("retain_eval", "eval", source, np.zeros(1, int))
    completer = completions.Completer.__new__(completions.Completer)
    completer.seed, completer.digests, completer._networks = 0, {"original": "ab"}, {}
    completer.sets = {"retain": split}
    completer._experiment = SimpleNamespace(config=config, sources={"eval": source})
    made, columns = [], {"mse": np.arange(100.0), "main/features": np.ones((100, 3))}

    def completed():
        made.append(1)
        return columns

    key = ("original", "retain", "center")
    for _ in range(2):
        completer.cached(key, completed)
    assert len(made) == 1
    (path,) = (tmp_path / "completions").iterdir()
    DAMAGE[damage](path)
    for _ in range(2):
        again = completer.cached(key, completed)
        assert again.keys() == columns.keys()
        assert all(np.array_equal(again[name], columns[name]) for name in columns)
    assert len(made) == (3 if damage == "a folder" else 2)
    assert (f"{path} " in caplog.text) == (damage != "deleted")


@pytest.mark.slow
def test_figures_of_the_same_name_are_kept_apart(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "run")
    changed = files.read_json(copy / "config.json")
    twins = {"reconstruction": {"grids": False}, "psnr": {"evaluator": "fid", "network": "tiny"}}
    files.write_json(copy / "config.json", changed | {"evaluators": twins})
    evaluate_again(copy)
    results = files.read_json(copy / "results.json")
    assert results["unlearned"]["retain"].keys() == {"psnr", "l1", "psnr_psnr"}
    assert results["measured"]["psnr"]["evaluator"] == "reconstruction"
    assert results["measured"]["psnr_psnr"]["evaluator"] == "fid"


@pytest.mark.parametrize(
    ("evaluators", "message"),
    [
        (dict(fid=dict(network="tinny")), r"No network called 'tinny'.*Did you mean 'tiny'"),
        (dict(fidd=dict()), "No evaluator called 'fidd'.*Did you mean 'fid'"),
        (dict(mine=dict(evaluator="reconstruction")), "more than one figure"),
        (dict(mine=dict(evaluator="fid", netwrk="tiny")), r"does not take 'netwrk'"),
    ],
)
def test_unknown_networks_evaluators_and_arguments(evaluators, message, tmp_path):
    wrong = make_config()
    wrong.evaluators = evaluators
    with pytest.raises(ConfigError, match=message):
        trained(wrong, tmp_path / "run")


def test_an_unknown_feature_network(tmp_path):
    wrong = make_config()
    wrong.networks.tiny.name = "clipp"
    with pytest.raises(ConfigError, match="No feature network called 'clipp'"):
        trained(wrong, tmp_path / "run")


@pytest.mark.slow
def test_without_any_network_the_rest_is_measured(tmp_path):
    """As on a machine without published networks: `main` is missing, too."""
    config = small_config()
    config.networks.main = NETWORKS["gone"]
    results = run(config, tmp_path / "run")
    assert results["unlearned"]["forget"].keys() == {"psnr", "l1"}
    assert results["skipped"].keys() == {"fid", "inception_score", "cosine", "tsne"}
    assert results["networks"] == {}
    assert "Not measured: fid" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (dict(name="inception", args=dict(weights="FILE")), WrongWeights, "begins with 6726825d"),
        (dict(name="inception", args=dict(kind="fidd")), ConfigError, "kind.*Did you mean 'fid'"),
        (
            dict(name="inception", args=dict(weights="random", size=64)),
            ConfigError,
            r"args\.size is at least 75",
        ),
        (
            dict(name="clip", args=dict(size="h15")),
            ConfigError,
            r"is 'h14'.*Did you mean 'h14'",
        ),
        (dict(name="clip", args=dict(size="tiny")), ConfigError, "is_gone.*features only"),
    ],
)
@pytest.mark.slow
def test_networks_are_checked_before_training(network, error, message, tmp_path):
    if network["args"].get("weights") == "FILE":
        path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
        path.write_bytes(b"cut off")
        network = dict(name="inception", args=dict(weights=str(path)))
    wrong = make_config()
    wrong.networks.gone = network
    with pytest.raises(error, match=message):
        trained(wrong, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def bare_completer(stamp, weights="random"):
    """A Completer with only what `cached` needs, for two evaluation images."""
    source = Source(("a", "b"), np.zeros(2, np.int32), ("all",), lambda at: None, stamp=stamp)
    completer = completions.Completer.__new__(completions.Completer)
    completer.digests, completer.seed = {"original": "1"}, 0
    forget = splits.pick("forget_eval", "eval", source, np.arange(2))
    completer.sets = {"forget": forget}
    completer._networks = {"main": SimpleNamespace(about={"weights": weights})}
    completer._experiment = SimpleNamespace(
        config=files.as_json(complete_config(make_config())),
        sources={"eval": source},
    )
    return completer


def test_kept_features_belong_to_images_and_networks(tmp_path, monkeypatch):
    """Images with equal keys, but in another folder or with changed files, are computed again."""
    monkeypatch.setenv("L2L_CACHE", str(tmp_path))
    key, computed = ("real", "forget", ""), []

    def columns(name):
        computed.append(name)
        return {"features": np.full(2, len(computed))}

    for name, completer in {
        "first": bare_completer(lambda at: f"/one/{at}"),
        "again": bare_completer(lambda at: f"/one/{at}"),
        "other root": bare_completer(lambda at: f"/two/{at}"),
        "one changed": bare_completer(lambda at: f"/one/{at} {at == 1}"),
        "other network": bare_completer(lambda at: f"/one/{at}", weights="clip.bin"),
    }.items():
        completer.cached(key, lambda name=name: columns(name))
    assert computed == ["first", "other root", "one changed", "other network"]


def test_a_cache_that_cannot_be_written_is_only_a_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("L2L_CACHE", str(tmp_path / "file"))
    columns = bare_completer(str).cached(("real", "forget", ""), lambda: {"features": np.ones(2)})
    assert columns["features"].sum() == 2
    assert "not kept for the next run" in caplog.text


def test_processes_with_different_files_stop(monkeypatch):
    """No process waits for weights that only another process sends."""
    compared = []
    disagreeing = lambda flags: compared.append(flags.tolist()) or [1]  # noqa: E731
    monkeypatch.setattr(networks.hosts, "disagreeing", disagreeing)
    with pytest.raises(ConfigError, match=r"Processes \[1\] have files of other networks"):
        networks.load(SimpleNamespace(plan=resolve(make_config())))
    assert compared == [[False, True, False]], "main, gone, tiny"
