"""Whole runs: what they leave behind, what they compute, every config in its small form."""

import logging
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from l2l_jax.datasets import fashion_mnist
from l2l_jax.engine import evaluation
from l2l_jax.engine.outcome import restored, run_phases
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.engine.run import evaluate_again, run
from l2l_jax.engine.training_sets import trained_on, training_splits
from l2l_jax.lib import cli, files, trees
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.preemption import StopSignal
from l2l_jax.registry import find
from l2l_jax.report.__main__ import main as report
from l2l_jax.weights import __main__, safetensors
from l2l_jax.workdir import claim as workdirs
from tests.helpers import (
    HASTY,
    ROOT,
    assert_same_bits,
    call,
    finished_run,
    params_of,
    ready,
    small_config,
    small_model,
    trained,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(workdir, results) of the small experiment; a test that alters it takes a copy."""
    source = finished_run()
    workdir = shutil.copytree(source, tmp_path_factory.mktemp("copy") / source.name)
    return workdir, files.read_json(workdir / "results.json")


@pytest.fixture
def copy(finished, tmp_path):
    """The workdir of the small experiment, to be altered."""
    return shutil.copytree(finished[0], tmp_path / "copy")


def test_a_run_leaves_what_other_tools_rely_on(finished):
    workdir, _ = finished
    names = {p.relative_to(workdir).as_posix() for p in workdir.rglob("*")}
    for name in ("config.json", "versions.json", "metrics.jsonl", "results.json", "report.html",
                 "splits/forget.json", "splits/retain_eval.json", "checkpoints/pretrain/2",
                 "checkpoints/unlearn/6", "images/center_forget.png", "tsne.json"):  # fmt: skip
        assert name in names, name
    assert not [name for name in names if "tmp" in name]
    versions = files.read_json(workdir / "versions.json")
    assert versions["packages"]["jax"] == jax.__version__
    assert versions["devices"] == "8 x cpu"


def test_results_have_the_agreed_shape(finished):
    _, results = finished
    for variant in ("original", "unlearned"):
        for side in ("retain", "forget"):
            assert {"fid", "is", "cosine", "psnr", "l1"} <= results[variant][side].keys()
            assert results["tasks"]["center"][variant][side] == results[variant][side]
    assert results["audits"] == {}
    assert results["counts"] == {"retain": 16, "forget": 16}
    assert set(results["seconds"]) == {"pretrain", "unlearn", "evaluate"}
    assert results["classes"]["forget"] == ["class0", "class1"]
    assert results["steps"] == {"pretrain": [2, 2], "unlearn": [6, 6]}


def test_metrics_begin_at_step_zero_with_both_objectives(finished):
    workdir, _ = finished
    records = list(files.read_jsonl(workdir / "metrics.jsonl"))
    unlearn = [record for record in records if record["phase"] == "unlearn"]
    assert [record["step"] for record in unlearn] == list(range(6))
    assert unlearn[0]["retain"] < 1e-12, "the student starts as the teacher"
    assert unlearn[0]["forget"] > 0
    assert all(record["retain"] > 0 for record in unlearn[2:])
    keys = {"loss", "gradient_norm", "update_norm", "learning_rate", "seconds", "data_wait",
            "examples_per_second", "flops_per_second"}  # fmt: skip
    assert keys <= unlearn[-1].keys()
    assert sorted(r["seconds"] for r in unlearn) == [r["seconds"] for r in unlearn]


def test_only_the_encoder_moved(finished):
    workdir, results = finished
    bench = ready(workdir)
    outcome = run_phases(bench, restored)
    original, final = bench.canonical(outcome.original), bench.canonical(outcome.final)
    moved = {group: trees.digest(original[group]) != trees.digest(final[group]) for group in final}
    assert moved == {"encoder": True, "decoder": False, "positions": False}
    assert outcome.done == {"pretrain": (2, 2), "unlearn": (6, 6)}
    assert results["digests"]["weights"] == {
        "original": trees.digest(original),
        "unlearned": trees.digest(final),
    }


@pytest.mark.slow
def test_evaluating_again_gives_the_same_figures(finished, copy):
    _, results = finished
    (copy / "results.json").unlink()
    evaluate_again(copy)
    again = files.read_json(copy / "results.json")
    assert again["tasks"] == results["tasks"]
    assert again["digests"] == results["digests"]


def test_a_run_returns_what_it_writes_down(finished, copy, caplog):
    """And a finished one does nothing else."""
    before = (copy / "report.html").stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        assert run(small_config(), copy) == finished[1]
    assert "is finished" in caplog.text
    assert (copy / "report.html").stat().st_mtime_ns == before
    (copy / "report.html").unlink()
    results = run(small_config(), copy)
    assert results == files.read_json(copy / "results.json")
    assert results["tasks"] == finished[1]["tasks"]


def test_the_page_can_be_written_again(finished, tmp_path):
    workdir, _ = finished
    report([str(workdir), "--out", str(tmp_path / "page.html")])
    assert (tmp_path / "page.html").read_bytes() == (workdir / "report.html").read_bytes()


@pytest.mark.slow
def test_the_same_config_gives_the_same_bits(finished, tmp_path):
    trained(small_config(), tmp_path / "again")
    assert_same_bits(params_of(tmp_path / "again"), params_of(finished[0]))


def test_both_models_see_the_same_images_and_masks(finished):
    """Outside what is hidden every row of a grid is the image itself."""
    workdir, _ = finished
    picture = np.asarray(Image.open(workdir / "images" / "center_forget.png"))
    rows = np.split(picture, 4)
    assert not np.array_equal(rows[2], rows[3])
    hidden = (rows[0] != rows[1]).any(axis=-1, keepdims=True)
    for row in rows[2:]:
        assert np.array_equal(np.where(hidden, 0, row), np.where(hidden, 0, rows[0]))


@pytest.mark.slow
def test_with_alpha_zero_nothing_moves(optimised, tmp_path):
    config = small_config()
    config.unlearn.solver_args = dict(alpha=0.0)
    config.unlearn.optimizer.weight_decay = 0.0
    outcome = trained(config, tmp_path / "run")
    assert outcome.done["unlearn"] == (6, 6)
    assert_same_bits(trees.flatten(outcome.final), trees.flatten(outcome.original))


@pytest.mark.slow
def test_bfloat16_and_scanned_blocks_and_accumulation_and_profile(tmp_path):
    """All that changes how a step is computed, at once."""
    config = small_config()
    config.model.args = {**config.model.args, "dtype": "bfloat16", "scan": True, "remat": True}
    config.unlearn.update(dict(accumulate=2, batch_size=16))
    config.runtime.update(dict(profile_from=1, profile_steps=3))
    results = run(config, tmp_path / "run")
    assert np.isfinite(results["unlearned"]["forget"]["fid"])
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


@pytest.mark.slow
def test_proxy_in_place_of_retain(tmp_path):
    config = small_config()
    config.split.retain.classes = (2,)
    config.split.proxy.classes = (3,)
    with pytest.raises(ConfigError, match=r"--config\.unlearn\.on=proxy .*leave config\.split"):
        run(config, tmp_path / "run")
    config.unlearn.on = "proxy"
    trained(config, tmp_path / "run")
    kept = {p.stem: files.read_json(p)["classes"] for p in (tmp_path / "run" / "splits").glob("*")}
    assert kept["proxy"] == ["class3"]
    assert kept["retain"] == kept["retain_eval"] == ["class2"]
    assert "proxy_eval" not in kept
    experiment = ready(tmp_path / "run")
    everything = trained_on(experiment.plan, experiment.splits)
    assert everything == {"forget", "proxy", "retain"}, "pretraining took them all"
    used = training_splits(experiment, "unlearn")
    assert used["retain"].classes == ("class3",), "the proxy is trained on"
    assert used["forget"].classes == ("class0", "class1")


def lean(config, workdir):
    """A config all of whose phases and tasks trace, with fewer of them, to be run sooner."""
    preflight(resolve(config), workdir, StopSignal())
    for phase in config.phases:
        config[phase].steps = 4
    config.evaluate.tasks = config.evaluate.tasks[:1]
    config.runtime.tensorboard = False
    return config


@pytest.mark.slow
def test_a_small_form_from_the_command_line(tmp_path):
    """Scenes in files of the true form, COCO in place of the retain images, every judge."""
    other = cli.load_config(f"{ROOT}/configs/mae_imagenet.py:large,random,proxy,smoke")
    lean(other, tmp_path / "imagenet")
    spec = "configs/mae_places365.py:random,coco,smoke"
    fewer = lean(cli.load_config(f"{ROOT}/{spec}"), tmp_path / "traced").evaluate.tasks
    done = call("l2l_jax.main", "--config", spec, "--workdir", tmp_path / "run",
                f"--config.evaluate.tasks={fewer}", timeout=400)  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = files.read_json(tmp_path / "run" / "results.json")
    wanted = {"fid", "fid_places", "kid", "is", "is_places", "is_released", "clip", "psnr"}
    assert wanted <= results["unlearned"]["forget"].keys()
    assert all(np.isfinite(results["unlearned"]["forget"][metric]) for metric in wanted)
    assert not results["skipped"]
    assert results["passes"]["unlearn"]["retain"]["split"] == "proxy"
    assert results["tokenizer"] is None
    assert list((tmp_path / "run" / "tensorboard").rglob("events*")), "CLU wrote its files"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "made"),
    [
        ("mage_imagenet.py:tied,smoke", "unlearned"),
        ("vqgan_imagenet.py:smoke", "original"),
        ("diffusion_places365.py:proxy,smoke", "unlearned"),
    ],
)
def test_every_config_runs_in_its_small_form(spec, made, tmp_path):
    config = lean(cli.load_config(f"{ROOT}/configs/{spec}"), tmp_path / "traced")
    config.networks.main = config.networks.clip  # the other judges take long to compile
    config.networks = dict()
    config.evaluators = dict(fid=dict())
    results = run(config, tmp_path / "run")
    assert np.isfinite(results[made]["forget"]["fid"])
    assert bool(results["tokenizer"]) == config.model.name.startswith(("mage", "vqgan"))


@pytest.mark.slow
def test_a_folder_of_ones_own_images(tmp_path):
    """What the README promises: classes by sub-folder, single images by a list, no weights."""
    source = fashion_mnist.load("train")
    for name in ("Bag", "Coat"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for row in np.flatnonzero(source.labels == source.classes.index(name))[:40]:
            image = Image.fromarray(source.read(row)).resize((80, 70))
            image.save(tmp_path / "mine" / name / f"{row}.jpg")
    listed = sorted(p.name for p in (tmp_path / "mine" / "Bag").iterdir())[:20]
    (tmp_path / "delete.txt").write_text("\n".join(f"Bag/{name}" for name in listed))
    config = cli.load_config(str(ROOT / "configs" / "folder.py") + ":small")
    config.data.args.root = str(tmp_path / "mine")
    config.split.forget.files = str(tmp_path / "delete.txt")
    for phase in ("pretrain", "unlearn"):
        config[phase].update(dict(batch_size=8, tasks=("random",)))
    config.evaluate.batch_size = 8
    config.networks.main.args.epochs = 1
    config.evaluators = dict(reconstruction=dict())
    results = run(lean(config, tmp_path / "traced"), tmp_path / "run")
    kept = [files.read_json(tmp_path / "run" / "splits" / f"forget{suffix}.json")["keys"]
            for suffix in ("", "_eval")]  # fmt: skip
    assert sorted(kept[0] + kept[1]) == sorted(f"Bag/{name}" for name in listed)
    assert results["counts"]["forget"] == len(kept[1]) < len(kept[0])
    assert "are held out: they are evaluated" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_a_run_that_was_cut_short_is_never_taken_for_a_whole_one(finished, copy, tmp_path):
    """It can be looked at, is called unfinished, is not exported unasked, and can be finished."""
    workdir, out = copy, tmp_path / "out.safetensors"
    shutil.rmtree(workdir / "checkpoints" / "unlearn" / "6")
    evaluate_again(workdir)
    assert files.read_json(workdir / "results.json")["steps"]["unlearn"] == [4, 6]
    assert "the phase unlearn was at step 4 of 6" in (workdir / "report.html").read_text()
    with pytest.raises(ConfigError, match=r"unlearn is at step 4 of 6.*--partial"):
        __main__.main(["export", str(workdir), str(out)])
    assert not out.exists()
    __main__.main(["export", str(workdir), str(out), "--partial"])
    assert out.exists()
    results = run(small_config(), workdir)
    assert results["steps"]["unlearn"] == [6, 6]
    assert_same_bits(params_of(workdir), params_of(finished[0]))


def test_two_launches_do_not_share_a_workdir(tmp_path):
    with workdirs.lock(tmp_path), pytest.raises(ConfigError, match="Another process is working"):
        run(small_config(), tmp_path)
    with workdirs.lock(tmp_path):
        trained(small_config(phases=("pretrain",)), tmp_path)


@pytest.mark.slow
def test_the_original_may_not_change_on_the_way(tmp_path):
    """The half that is done compared with one teacher, the other half would with another."""
    model, path = small_model("mae"), tmp_path / "original.safetensors"
    about = {"model": "mae", "args": find("model", "mae").SMALLEST}
    config = small_config(phases=("unlearn",), weights=str(path))
    config.evaluators = dict(reconstruction=dict())
    safetensors.save(path, jax.device_get(model.init(jax.random.key(0))), about)
    run(config, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    (tmp_path / "run" / "original.json").unlink()
    run(config, tmp_path / "run")  # as after a kill before that file was written
    (tmp_path / "run" / "report.html").unlink()
    safetensors.save(path, jax.device_get(model.init(jax.random.key(1))), about)
    message = r"original\.safetensors is not what .* began with"
    with pytest.raises(ConfigError, match=message):
        run(config, tmp_path / "run")
    with pytest.raises(ConfigError, match=message):
        __main__.main(["export", str(tmp_path / "run"), str(tmp_path / "mixed.pth")])


@pytest.mark.slow
def test_an_older_page_is_never_taken_for_the_page_of_newer_results(copy):
    bench = ready(copy)
    evaluation.evaluate(bench, run_phases(bench, restored))  # killed before the page is written
    assert (copy / "results.json").exists()
    assert not (copy / "report.html").exists()
    run(small_config(), copy)
    assert (copy / "report.html").exists()


@pytest.mark.slow
def test_what_a_model_was_trained_on_decides_its_name(tmp_path):
    """Retrained is what never saw the forget images; weights from elsewhere may have."""
    config = small_config(phases=("pretrain",))
    config.evaluators = dict(reconstruction=dict())
    results = run(config, tmp_path / "all")
    assert results["trained_on"] == ["forget", "retain"]
    assert "original" in results
    page = (tmp_path / "all" / "report.html").read_text()
    assert "that knows what is to be forgotten" in page
    made = tmp_path / "made.safetensors"
    __main__.main(["export", str(tmp_path / "all"), str(made)])
    config.pretrain.on = "retain"
    results = run(config, tmp_path / "retain")
    assert results["trained_on"] == ["retain"]
    assert "retrained" in results
    page = (tmp_path / "retain" / "report.html").read_text()
    assert "that never saw what is to be forgotten" in page
    config.weights = str(made)
    assert "original" in run(config, tmp_path / "more")


@pytest.mark.parametrize(("given", "name"), [("tokenizer", "retrained"), ("whole", "original")])
def test_a_tokenizer_that_was_given_knows_no_images_to_forget(given, name):
    groups = {"encoder": 0, "decoder": 0, "tokenizer": 0}
    weights = {"tokenizer": {"tokenizer": 0}, "whole": groups}[given]
    pretrain = SimpleNamespace(method=find("method", "pretrain"), on="retain")
    experiment = SimpleNamespace(
        plan=SimpleNamespace(proxy=None, phases={"pretrain": pretrain}), reference=None,
        splits=dict.fromkeys(("retain", "forget")), weights=SimpleNamespace(params=weights),
        model=SimpleNamespace(template=groups),
    )  # fmt: skip
    assert evaluation.variants(experiment, SimpleNamespace(final="x")) == {name: "x"}


@pytest.mark.slow
def test_a_run_on_many_devices_is_read_on_one(finished, copy, tmp_path):
    workdir, config = copy, files.read_json(copy / "config.json")
    config["runtime"]["fsdp"] = 8
    config["evaluators"] = {"reconstruction": {}}
    files.write_json(workdir / "config.json", config)
    done = call("l2l_jax.weights", "export", workdir, tmp_path / "out.safetensors")
    assert done.returncode == 0, done.stderr
    exported = trees.flatten(safetensors.load(tmp_path / "out.safetensors").params)
    assert_same_bits(exported, params_of(finished[0]))
    done = call("l2l_jax.evaluate", "--workdir", workdir, devices=4, **HASTY)
    assert done.returncode == 0, done.stderr
