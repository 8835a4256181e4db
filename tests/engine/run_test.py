"""Whole runs: the files they write, their results, and every config in its smoke form."""

import logging
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from l2l_jax.datasets import fashion_mnist
from l2l_jax.engine import evaluation, step
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
    ROOT,
    assert_same_bits,
    call,
    finished_run,
    open_with_data,
    params_of,
    small_config,
    small_model,
    trained,
)

pytestmark = pytest.mark.slow  # the first test makes what the others need


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(workdir, results) of the small experiment; read-only."""
    source = finished_run()
    workdir = shutil.copytree(source, tmp_path_factory.mktemp("copy") / source.name)
    return workdir, files.read_json(workdir / "results.json")


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the workdir of the small experiment, which the test may change."""
    return shutil.copytree(finished[0], tmp_path / "copy")


def test_a_run_writes_the_files_that_other_tools_need(finished):
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


def test_results_have_the_documented_structure(finished):
    workdir, results = finished
    for variant in ("original", "unlearned"):
        for side in ("retain", "forget"):
            assert {"fid", "is", "cosine", "psnr", "l1"} <= results[variant][side].keys()
            assert results["tasks"]["center"][variant][side] == results[variant][side]
    assert results["audits"] == {}
    assert results["counts"] == {"retain": 16, "forget": 16, "forget_train": 16}
    assert results["sets"]["forget_train"]["of"] == 32
    asked = results["tasks"]["center"]["unlearned"]["forget_train"]
    assert asked.keys() == results["unlearned"]["forget"].keys()
    for side in ("retain", "forget", "forget_train"):
        for name, (low, high) in results["intervals"]["center"]["unlearned"][side].items():
            value = results["tasks"]["center"]["unlearned"][side][name]
            assert low <= value <= high or name == "is", f"{name} of {side}"
    assert results["training"]["original"]["passes"] == 2 * 8 / 64
    assert not list((workdir / "images").glob("*_train.png")), "asked for, and not shown"
    assert set(results["seconds"]) == {"pretrain", "unlearn", "evaluate"}
    assert results["classes"]["forget"] == ["class0", "class1"]
    assert results["steps"] == {"pretrain": [2, 2], "unlearn": [6, 6]}


def test_metrics_begin_at_step_zero_with_both_objectives(finished):
    workdir, _ = finished
    records = list(files.read_jsonl(workdir / "metrics.jsonl"))
    unlearn = [record for record in records if record["phase"] == "unlearn"]
    assert [record["step"] for record in unlearn] == list(range(6))
    assert unlearn[0]["retain"] < 1e-12, "the student starts equal to the teacher"
    assert unlearn[0]["forget"] > 0
    assert all(record["retain"] > 0 for record in unlearn[2:])
    keys = {"loss", "gradient_norm", "update_norm", "learning_rate", "seconds", "data_wait",
            "examples_per_second", "flops_per_second"}  # fmt: skip
    assert keys <= unlearn[-1].keys()
    assert sorted(r["seconds"] for r in unlearn) == [r["seconds"] for r in unlearn]


def test_only_the_encoder_moved(finished):
    workdir, results = finished
    experiment = open_with_data(workdir)
    outcome = run_phases(experiment, restored)
    original, final = experiment.canonical(outcome.original), experiment.canonical(outcome.final)
    changed = {
        group: trees.digest(original[group]) != trees.digest(final[group]) for group in final
    }
    assert changed == {"encoder": True, "decoder": False, "positions": False}
    assert outcome.done == {"pretrain": (2, 2), "unlearn": (6, 6)}
    assert results["digests"]["weights"] == {
        "original": trees.digest(original),
        "unlearned": trees.digest(final),
    }


def test_evaluating_again_gives_the_same_figures(finished, copy):
    _, results = finished
    (copy / "results.json").unlink()
    evaluate_again(copy)
    again = files.read_json(copy / "results.json")
    assert again["tasks"] == results["tasks"]
    assert again["digests"] == results["digests"]


def test_a_run_returns_its_results(finished, copy, caplog):
    """A finished run only returns them."""
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


def test_the_same_config_gives_the_same_bits_and_each_step_is_traced_once(
    finished, tmp_path, monkeypatch
):
    traced, draw = [], step.draw

    def counted(rule, side, *args):
        traced.append((rule.phase, side))
        return draw(rule, side, *args)

    monkeypatch.setattr(step, "draw", counted)
    trained(small_config(), tmp_path / "again")
    assert sorted(traced) == [("pretrain", "retain"), ("unlearn", "forget"), ("unlearn", "retain")]
    assert_same_bits(params_of(tmp_path / "again"), params_of(finished[0]))


def test_both_models_see_the_same_images_and_masks(finished):
    """Outside the hidden pixels, every row of a grid equals the image."""
    workdir, _ = finished
    picture = np.asarray(Image.open(workdir / "images" / "center_forget.png"))
    rows = np.split(picture, 4)
    assert not np.array_equal(rows[2], rows[3])
    hidden = (rows[0] != rows[1]).any(axis=-1, keepdims=True)
    for row in rows[2:]:
        assert np.array_equal(np.where(hidden, 0, row), np.where(hidden, 0, rows[0]))


def test_with_alpha_zero_nothing_moves(optimised, tmp_path):
    config = small_config()
    config.unlearn.solver_args = dict(alpha=0.0)
    config.unlearn.optimizer.weight_decay = 0.0
    outcome = trained(config, tmp_path / "run")
    assert outcome.done["unlearn"] == (6, 6)
    assert_same_bits(trees.flatten(outcome.final), trees.flatten(outcome.original))


def test_bfloat16_and_scanned_blocks_and_accumulation_and_profile(tmp_path):
    """All settings that change how a step is computed, together."""
    config = small_config()
    config.model.args = {**config.model.args, "dtype": "bfloat16", "scan": True, "remat": True}
    config.unlearn.update(dict(accumulate=2, batch_size=16))
    config.runtime.update(dict(profile_from=1, profile_steps=3))
    results = run(config, tmp_path / "run")
    assert np.isfinite(results["unlearned"]["forget"]["fid"])
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


def test_proxy_in_place_of_retain(tmp_path):
    config = small_config()
    config.split.retain.classes = (2,)
    config.split.proxy.classes = (3,)
    with pytest.raises(ConfigError, match=r"--config\.unlearn\.on=proxy .*leave config\.split"):
        run(config, tmp_path / "run")
    config.unlearn.on = "proxy"
    trained(config, tmp_path / "run")
    classes = {
        p.stem: files.read_json(p)["classes"] for p in (tmp_path / "run" / "splits").glob("*")
    }
    assert classes["proxy"] == ["class3"]
    assert classes["retain"] == classes["retain_eval"] == ["class2"]
    assert "proxy_eval" not in classes
    experiment = open_with_data(tmp_path / "run")
    names = trained_on(experiment.plan, experiment.splits)
    assert names == {"forget", "proxy", "retain"}, "pretraining used all images"
    used = training_splits(experiment, "unlearn")
    assert used["retain"].classes == ("class3",), "the proxy is trained on"
    assert used["forget"].classes == ("class0", "class1")


def shortened(config, workdir):
    """Checks that all phases and tasks can be traced; returns a smaller config."""
    preflight(resolve(config), workdir, StopSignal())
    for phase in config.phases:
        config[phase].update(dict(steps=4, batch_size=8))
    config.split.eval_images_per_class = 2
    config.evaluate.tasks = config.evaluate.tasks[:1]
    config.runtime.tensorboard = False
    return config


def test_a_smoke_form_from_the_command_line(tmp_path):
    """Scenes in files of the real format, COCO as the proxy, all feature networks."""
    other = cli.load_config(f"{ROOT}/configs/mae_imagenet.py:large,random,proxy,smoke")
    shortened(other, tmp_path / "imagenet")
    spec = "configs/mae_places365.py:random,coco,smoke"
    fewer = shortened(cli.load_config(f"{ROOT}/{spec}"), tmp_path / "traced").evaluate.tasks
    done = call("l2l_jax.main", "--config", spec, "--workdir", tmp_path / "run",
                f"--config.evaluate.tasks={fewer}", timeout=400,
                JAX_DISABLE_MOST_OPTIMIZATIONS="0")  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = files.read_json(tmp_path / "run" / "results.json")
    expected = {"fid", "fid_places", "kid", "is", "is_places", "is_released", "clip", "psnr"}
    assert expected <= results["unlearned"]["forget"].keys()
    assert all(np.isfinite(results["unlearned"]["forget"][metric]) for metric in expected)
    assert not results["skipped"]
    assert results["passes"]["unlearn"]["retain"]["split"] == "proxy"
    assert results["tokenizer"] is None
    assert list((tmp_path / "run" / "tensorboard").rglob("events*")), "CLU wrote its files"


@pytest.mark.parametrize(
    ("spec", "variant"),
    [
        ("mage_imagenet.py:tied,smoke", "unlearned"),
        ("vqgan_imagenet.py:smoke", "original"),
        ("diffusion_places365.py:proxy,smoke", "unlearned"),
    ],
)
def test_every_config_runs_in_its_smoke_form(spec, variant, tmp_path):
    config = shortened(cli.load_config(f"{ROOT}/configs/{spec}"), tmp_path / "traced")
    config.networks = dict(main=config.networks.clip)  # other networks compile slowly
    config.evaluators = dict(fid=dict())
    results = run(config, tmp_path / "run")
    assert np.isfinite(results[variant]["forget"]["fid"])
    assert bool(results["tokenizer"]) == config.model.name.startswith(("mage", "vqgan"))


def test_a_folder_of_images(tmp_path):
    """As in README.md: classes are sub-folders, a file lists images to forget, no weights."""
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
    config = shortened(config, tmp_path / "traced")
    config.model.args, config.evaluate.tasks = dict(find("model", "mae").SMALLEST), ("random",)
    results = run(config, tmp_path / "run")
    kept = [files.read_json(tmp_path / "run" / "splits" / f"forget{suffix}.json")["keys"]
            for suffix in ("", "_eval")]  # fmt: skip
    assert sorted(kept[0] + kept[1]) == sorted(f"Bag/{name}" for name in listed)
    assert results["counts"]["forget"] == len(kept[1]) < len(kept[0])
    assert "are held out: they are evaluated" in (tmp_path / "run" / "report.html").read_text()


def test_an_unfinished_run_is_marked(finished, copy, tmp_path):
    """It can be evaluated, is called unfinished, needs --partial to export, and can be finished."""
    workdir, out = copy, tmp_path / "out.safetensors"
    shutil.rmtree(workdir / "checkpoints" / "unlearn" / "6")
    (workdir / "results.json").unlink()
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


def test_the_original_may_not_change_during_a_run(tmp_path):
    """Otherwise the first steps would have one teacher and the remaining steps another."""
    model, path = small_model("mae"), tmp_path / "original.safetensors"
    about = {"model": "mae", "args": find("model", "mae").SMALLEST}
    config = small_config(phases=("unlearn",), weights=str(path))
    config.evaluators = dict(reconstruction=dict())
    safetensors.save(path, jax.device_get(model.init(jax.random.key(0))), about)
    run(config, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    (tmp_path / "run" / "original.json").unlink()
    run(config, tmp_path / "run")  # as if killed before original.json was written
    (tmp_path / "run" / "report.html").unlink()
    safetensors.save(path, jax.device_get(model.init(jax.random.key(1))), about)
    message = r"original\.safetensors is not what .* began with"
    with pytest.raises(ConfigError, match=message):
        run(config, tmp_path / "run")
    with pytest.raises(ConfigError, match=message):
        __main__.main(["export", str(tmp_path / "run"), str(tmp_path / "mixed.pth")])


def test_new_results_remove_the_old_page(copy):
    experiment = open_with_data(copy)
    # As if killed before the report is written:
    evaluation.evaluate(experiment, run_phases(experiment, restored))
    assert (copy / "results.json").exists()
    assert not (copy / "report.html").exists()
    run(small_config(), copy)
    assert (copy / "report.html").exists()


def test_what_a_model_was_trained_on_decides_its_name(tmp_path):
    """A retrained model never saw the forget images; loaded weights count as an original."""
    config = small_config(phases=("pretrain",))
    config.evaluators = dict(reconstruction=dict())
    results = run(config, tmp_path / "all")
    assert results["trained_on"] == ["forget", "retain"]
    assert "original" in results
    page = (tmp_path / "all" / "report.html").read_text()
    assert "that knows what is to be forgotten" in page
    exported = tmp_path / "exported.safetensors"
    __main__.main(["export", str(tmp_path / "all"), str(exported)])
    config.pretrain.on = "retain"
    results = run(config, tmp_path / "retain")
    assert results["trained_on"] == ["retain"]
    assert "retrained" in results
    page = (tmp_path / "retain" / "report.html").read_text()
    assert "that never saw what is to be forgotten" in page
    config.weights = str(exported)
    assert "original" in run(config, tmp_path / "more")


@pytest.mark.parametrize(("loaded", "name"), [("tokenizer", "retrained"), ("all", "original")])
def test_loading_only_a_tokenizer_still_makes_a_retrained_model(loaded, name):
    groups = {"encoder": 0, "decoder": 0, "tokenizer": 0}
    weights = {"tokenizer": {"tokenizer": 0}, "all": groups}[loaded]
    pretrain = SimpleNamespace(method=find("method", "pretrain"), on="retain")
    experiment = SimpleNamespace(
        plan=SimpleNamespace(proxy=None, phases={"pretrain": pretrain}), references=(),
        splits=dict.fromkeys(("retain", "forget")), weights=SimpleNamespace(params=weights),
        model=SimpleNamespace(template=groups),
    )  # fmt: skip
    assert evaluation.variants(experiment, SimpleNamespace(final="x")) == {name: "x"}


def test_a_run_on_many_devices_is_read_on_one(finished, copy, tmp_path):
    workdir, config = copy, files.read_json(copy / "config.json")
    config["runtime"]["fsdp"] = 8
    config["evaluators"] = {"reconstruction": {}}
    files.write_json(workdir / "config.json", config)
    done = call("l2l_jax.weights", "export", workdir, tmp_path / "out.safetensors")
    assert done.returncode == 0, done.stderr
    exported = trees.flatten(safetensors.load(tmp_path / "out.safetensors").params)
    assert_same_bits(exported, params_of(finished[0]))
    done = call("l2l_jax.evaluate", "--workdir", workdir, devices=4)
    assert done.returncode == 0, done.stderr
