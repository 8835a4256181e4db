"""Error messages for bad input: they say what is wrong, what exists and what to do."""

import re
import shutil
import subprocess

import jax
import numpy as np
import pytest
from PIL import Image

from l2l_jax.engine.plan import resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.engine.run import run
from l2l_jax.lib.errors import BrokenImage, ConfigError, DataMissing, NonFinite, WrongWeights
from l2l_jax.lib.preemption import StopSignal
from l2l_jax.models import mae
from l2l_jax.registry import find
from l2l_jax.weights import convert, safetensors, torch_reader, torch_writer
from tests.helpers import ROOT, call, command, finished_run, small_config, unpacked


def assert_refused(config, tmp_path, error, message):
    """run() raises the error with the message and does not claim the workdir."""
    with pytest.raises(error, match=message):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_unknown_method(tmp_path):
    config = small_config()
    config.unlearn.method = "l2ll"
    assert_refused(config, tmp_path, ConfigError, r"No method called 'l2ll'\. Did you mean 'l2l'\?")


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("kid", "size", 1, r"evaluators\.kid\.size is at least 2 .*, not 1"),
        (
            "inception_score",
            "splits",
            0,
            r"evaluators\.inception_score\.splits is at least 1 .*, not 0",
        ),
        ("tsne", "perplexity", 0.0, r"evaluators\.tsne\.perplexity is at least 1 .*, not 0\.0"),
    ],
)
def test_arguments_of_evaluators_are_checked_before_training(
    section, key, value, message, tmp_path
):
    config = small_config()
    config.evaluators[section] = {key: value}
    assert_refused(config, tmp_path, ConfigError, message)


def test_a_negative_clip_is_refused(tmp_path):
    config = small_config()
    config.unlearn.optimizer.clip = -1.0
    assert_refused(
        config, tmp_path, ConfigError, r"optimizer\.clip is at least 0, not -1\.0: the largest norm"
    )


def test_unknown_keys(tmp_path):
    config = small_config()
    config.unlearn.stpes = 3
    assert_refused(config, tmp_path, ConfigError, "key of unlearn called 'stpes'.*'steps'")
    config = small_config()
    config.unlearn.args = dict(noize="standard")
    assert_refused(config, tmp_path, ConfigError, "does not take 'noize'.*It takes: noise, clip")
    config = small_config()
    config.evaluaters = dict()
    assert_refused(
        config, tmp_path, ConfigError, "config section called 'evaluaters'.*'evaluators'"
    )
    config = small_config()
    config.unlearn.optimizer.learning_rate = 1.0
    assert_refused(config, tmp_path, ConfigError, "key of unlearn.optimizer called 'learning_rate'")
    config = small_config()
    config.runtime.keeep = 1
    assert_refused(config, tmp_path, ConfigError, "called 'keeep'.*'keep'")


def test_unknown_task_and_phase(tmp_path):
    config = small_config()
    config.unlearn.tasks = ("centre",)
    assert_refused(
        config, tmp_path, ConfigError, "No task called 'centre'.*'center'.*unlearn.tasks"
    )
    config = small_config(phases=("pretrain", "unlern"))
    assert_refused(config, tmp_path, ConfigError, "No phase called 'unlern'.*'unlearn'")


def test_no_phase_and_a_repeated_phase(tmp_path):
    assert_refused(small_config(phases=()), tmp_path, ConfigError, "phases is empty")
    twice = small_config(phases=("pretrain", "unlearn", "pretrain"))
    assert_refused(twice, tmp_path, ConfigError, "names 'pretrain' twice.*section of its own")


@pytest.mark.parametrize("key", ["keep", "save_every", "threads"])
def test_values_that_must_be_at_least_one(key, tmp_path):
    config = small_config()
    config.runtime[key] = 0
    assert_refused(config, tmp_path, ConfigError, f"runtime.{key} is at least 1 and .*, not 0")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("networks", dict(main=dict(name="classifier", args=dict(epochs=0))), "args.epochs is at"),
        (
            "networks",
            dict(main=dict(name="classifier", args=dict(size=0))),
            "args.size is at least",
        ),
        (
            "networks",
            dict(main=dict(name="classifier", args=dict(lr=float("nan")))),
            "args.lr is a",
        ),
        ("unlearn", dict(solver_args=dict(alpha=float("inf"))), "alpha is a finite number"),
    ],
)
def test_a_corrected_config_is_accepted_in_the_same_workdir(section, value, message, tmp_path):
    """What failed after all training, or after a pretrain phase, fails before the first step."""
    config = small_config()
    config[section].update(value)
    assert_refused(config, tmp_path, ConfigError, message)
    preflight(resolve(small_config()), tmp_path / "run", StopSignal())


def test_overlapping_splits(tmp_path):
    config = small_config()
    config.split.retain.classes = (1, 2)
    assert_refused(
        config, tmp_path, ConfigError, "split.forget and split.retain share 16 images of class1"
    )


def test_empty_forget_set(tmp_path):
    config = small_config()
    config.split.forget.classes = ()
    assert_refused(
        config, tmp_path, ConfigError, r"The forget set is empty.*--config\.split\.forget"
    )


def test_missing_folder(tmp_path):
    config = small_config()
    config.data.name = "folder"
    config.data.args = dict(root=str(tmp_path / "nowhere"))
    assert_refused(config, tmp_path, DataMissing, "There is no folder .*nowhere.*sub-folder")


def test_missing_weights(tmp_path):
    config = small_config(phases=("unlearn",))
    assert_refused(config, tmp_path, ConfigError, "config.weights is empty.*bundled:")
    config.weights = str(tmp_path / "mae_visualize_vit_base.safetensors")
    assert_refused(config, tmp_path, DataMissing, "curl -L https://.*\n.*l2l_jax.weights import")
    config.weights = "bundled:mae_fashion"
    assert_refused(config, tmp_path, DataMissing, "Bundled are: ")


@pytest.mark.slow
def test_weights_of_another_model(tmp_path):
    config = small_config(phases=("unlearn",))
    other = mae.build(**(mae.SMALLEST | dict(width=32)))
    path = tmp_path / "w.safetensors"
    params = jax.device_get(other.init(jax.random.key(0)))
    safetensors.save(path, params, {"model": "mae", "args": mae.SMALLEST | {"width": 32}})
    config.weights = str(path)
    message = r"(?s)decoder/embed/kernel: \(32, 16\) in .*'width': 32"
    assert_refused(config, tmp_path, WrongWeights, message)


def test_encoder_only_weights(tmp_path):
    """The layout of mae_pretrain_vit_*.pth: an official file without the decoder."""
    state = torch_reader.read(unpacked("mae/checkpoint_model.pth"))["model"]
    encoder = {k: v for k, v in state.items() if "decoder" not in k and k != "mask_token"}
    path = tmp_path / "mae_pretrain_vit_base.pth"
    torch_writer.write(path, {"model": encoder})
    with pytest.raises(WrongWeights, match=r"encoder only.*mae_visualize_vit_"):
        convert.import_file(path, tmp_path / "out.safetensors", "mae", {})
    assert not (tmp_path / "out.safetensors").exists()


def test_a_checkpoint_that_lacks_keys(tmp_path):
    state = torch_reader.read(unpacked("mae/checkpoint_model.pth"))["model"]
    del state["decoder_norm.weight"]
    torch_writer.write(tmp_path / "x.pth", {"model": state})
    args = dict(heads=3, decoder_heads=4)
    with pytest.raises(WrongWeights, match="only in a whole mae: decoder/norm/scale"):
        convert.import_file(tmp_path / "x.pth", tmp_path / "y.safetensors", "mae", args)


def test_batches_that_do_not_divide(tmp_path):
    config = small_config()
    config.unlearn.batch_size = 12
    assert_refused(
        config, tmp_path, ConfigError, r"unlearn.batch_size=12 cannot .* 8 devices; try 8 or 16"
    )


@pytest.mark.slow
def test_a_workdir_of_another_config(tmp_path):
    workdir, config = shutil.copytree(finished_run(), tmp_path / "run"), small_config()
    config.unlearn.steps = 2
    config.seed = 5
    with pytest.raises(ConfigError) as error:
        run(config, workdir)
    assert "belongs to another config (2 values differ)" in str(error.value)
    assert "unlearn.steps: 6 there, 2 here" in str(error.value)
    config.unlearn.steps = 6
    config.seed = 0
    config.runtime.threads = 7  # not a setting that decides results
    run(config, workdir)


def test_a_workdir_that_is_no_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    assert_refused(
        small_config(), tmp_path, ConfigError, r"not empty and holds no run \(thesis.tex\)"
    )


@pytest.mark.slow
def test_a_list_of_images_may_not_change_in_a_continued_run(tmp_path, caplog):
    config, listed = small_config(phases=("pretrain",)), tmp_path / "forget.txt"
    listed.write_text("train/class0/00000\ntrain/class0/00001\n")
    config.split.forget = dict(config.split.forget, classes=(), files=str(listed))
    plan, workdir = resolve(config), tmp_path / "run"
    before = preflight(plan, workdir, StopSignal()).splits["forget"].keys
    assert len(before) == 2
    listed.write_text("train/class0/00001\n\ntrain/class0/00000\ntrain/class0/00000\n")
    assert preflight(plan, workdir, StopSignal()).splits["forget"].keys == before
    listed.write_text("train/class0/00000\ntrain/class0/00005\ntrain/class0/00006\n")
    with pytest.raises(
        ConfigError, match=r"forget\.txt has changed .* 2 other images, and 1 no lon"
    ):
        preflight(plan, workdir, StopSignal())
    listed.unlink()
    assert preflight(plan, workdir, StopSignal()).splits["forget"].keys == before
    assert "a list of images is gone; the run goes on with those of" in caplog.text


def folder_config(tmp_path, broken):
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(10):
            image = Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8))
            image.save(tmp_path / "pets" / name / f"{i}.png")
    (tmp_path / "pets" / "cats" / "3.png").write_bytes(b"\x89PNG broken")
    config = small_config()
    config.data.update(dict(name="folder", crop=(0.5, 1.0), flip=True, broken=broken))
    config.data.args = dict(root=str(tmp_path / "pets"), eval_fraction=0.3)
    config.split.forget.classes = ("cats",)
    config.evaluators = dict(reconstruction=dict())
    return config


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (dict(heads=5), r"model\.args\.width=16 must be divisible by its 5 heads and by 4; change"),
        (dict(decoder_width=18, decoder_heads=2), r"decoder_width=18 must be .* 2 heads and by 4"),
    ],
)
def test_widths_that_do_not_divide(args, message, tmp_path):
    config = small_config()
    config.model.args = config.model.args.to_dict() | args
    assert_refused(config, tmp_path, ConfigError, message)


def test_an_unreadable_image_stops_the_run(tmp_path):
    config = folder_config(tmp_path, "stop")
    message = r"(?s)1 of the \d+ images of forget.*cats/3\.png.*--config\.data\.broken=skip"
    assert_refused(config, tmp_path, BrokenImage, message)


def test_skipping_may_not_empty_a_side(tmp_path):
    config = folder_config(tmp_path, "skip")
    for path in (tmp_path / "pets" / "cats").iterdir():
        path.write_bytes(b"\x89PNG broken")
    assert_refused(config, tmp_path, ConfigError, "The forget set is empty")


@pytest.mark.slow
def test_skipped_images_are_listed_on_the_page(tmp_path):
    run(folder_config(tmp_path, "skip"), tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Broken images of forget, left out: 1" in page
    assert "cats/3.png" in page


@pytest.mark.slow
def test_a_number_that_is_not_finite_stops_the_run(tmp_path):
    config = small_config()
    config.unlearn.update(dict(steps=40, solver_args=dict(alpha=3e38)))
    config.unlearn.optimizer.update(dict(lr=10.0, warmup=0.0))
    with pytest.raises(NonFinite, match=r"non-finite between .*step \d+.*; lower optimizer\.lr"):
        run(config, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "pretrain" / "2").is_dir(), (
        "the last good checkpoint stays"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.unlearn.stpes=3"], "--config.unlearn.stpes: .* no such key.*'unlearn.steps'"),
        (["--config.seed=x"], "seed"),
        (["config.seed=1"], "belong to no flag"),
    ],
)
@pytest.mark.slow
def test_the_command_line(words, message, tmp_path):
    done = call("l2l_jax.main", "--config", "configs/fashion_mnist.py", "--workdir", tmp_path / "x",
                *words)  # fmt: skip
    assert done.returncode != 0
    assert re.search(message, done.stderr), done.stderr


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("configs/fashion_mnits.py", "Did you mean 'configs/fashion_mnist.py'"),
        ("configs/fashion_mnist.py:smoek", "has the forms ('mage', 'vqgan'"),
    ],
)
@pytest.mark.slow
def test_a_config_that_does_not_exist(config, message, tmp_path):
    done = call("l2l_jax.main", "--config", config, "--workdir", tmp_path / "x")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["evaluate", "report"])
@pytest.mark.slow
def test_a_folder_that_holds_no_run(module, tmp_path):
    words = ["--workdir", tmp_path] if module == "evaluate" else [tmp_path]
    done = call(f"l2l_jax.{module}", *words)
    assert done.returncode == 2
    assert "holds no" in done.stderr
    assert "Traceback" not in done.stderr


RUN_WITH_FILE_LIMIT = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
sys.argv = ["main", *sys.argv[1:]]
runpy.run_module("l2l_jax.main", run_name="__main__")
"""


@pytest.mark.slow
def test_a_full_disk_while_saving(tmp_path):
    """Simulates a full disk: no file may grow beyond 30 kB, so a checkpoint is cut off.

    The process writes no compiled programs into the shared cache: they would be cut off, too.
    """
    words = ["--config", "tests/configs/small.py", "--workdir", str(tmp_path / "run")]
    arguments, env = command("l2l_jax.main", *words)
    limited = [arguments[0], "-c", RUN_WITH_FILE_LIMIT, *words]
    read_only_cache = env | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9"}
    first = subprocess.run(
        limited, env=read_only_cache, cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert first.returncode == 2, first.stderr
    message = r"(?m)^error: Step 2 could not be saved .*the disk is full"
    assert len(re.findall(message, first.stderr)) == 1, first.stderr
    assert "Traceback" not in first.stderr  # the writing threads raise dozens
    done = subprocess.run(arguments, env=env, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()


def test_unknown_names_in_a_checkpoint_are_refused(tmp_path):
    state = torch_reader.read(unpacked("mae/checkpoint_model.pth"))["model"]
    del state["decoder_norm.bias"]
    torch_writer.write(tmp_path / "a.pth", {"model": state | {"vit.cls": np.zeros(1)}})
    message = r"(?s)No rule for the names vit\.cls\..*only in a whole mae: decoder/norm/bias"
    args = {"heads": 3, "decoder_heads": 4}
    with pytest.raises(WrongWeights, match=message):
        convert.import_file(tmp_path / "a.pth", tmp_path / "b.safetensors", "mae", args)


@pytest.mark.parametrize(
    "task",
    [
        dict(task="side", args=dict(cells=7, finer=2)),
        dict(task="center", args=dict(cells=7, finer=2)),
        dict(task="outpaint", args=dict(cells=1, finer=2)),
        dict(task="random", args=dict(ratio=0.99)),
        dict(task="random_ratio", args=dict(least=0.99)),
        dict(task="freeform", args=dict(side=1.0, shrink=0.0, margin=0.0)),
    ],
    ids=lambda task: task["task"],
)
@pytest.mark.parametrize("where", ["evaluate", "unlearn"])
def test_no_setting_of_a_task_may_hide_the_whole_image(tmp_path, task, where):
    config = small_config()
    config.tasks.all = task
    config[where].tasks = ("all",)
    assert_refused(config, tmp_path, ConfigError, "hide all 4x4 cells of the model")


@pytest.mark.slow
def test_the_margin_of_a_model_may_not_hide_the_rest(tmp_path):
    config = small_config(model=dict(name="mage", args=find("model", "mage").SMALLEST))
    config.tasks.ring = dict(task="outpaint", args=dict(cells=2))
    config.evaluate.tasks = ("ring",)
    message = "The task ring leaves the model no token: it hides all but 4, and .*margin=released"
    assert_refused(config, tmp_path, ConfigError, message)
