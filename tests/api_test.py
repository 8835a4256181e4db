"""The Python API: quick import, input checks, and completions that change only hidden pixels."""

import asyncio
import doctest
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import l2l_jax
from l2l_jax import api, loaded
from l2l_jax.engine.completions import Completer
from l2l_jax.engine.outcome import final_weights, read_run
from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, DataMissing, WrongWeights
from l2l_jax.registry import find
from l2l_jax.weights import safetensors
from tests.helpers import ROOT, finished_run, small_model, unpacked
from tests.helpers import images as random_images

BUNDLED = {
    "mae": {},
    "mage": {"steps": 2},
    "vqgan": {},
    "diffusion": {"sample_steps": 2},
}
HIDDEN = np.zeros((32, 32), bool)
HIDDEN[9:22, 6:27] = True  # not aligned with the cells, which have 4x4 pixels
CENTER = dict(task="center", args=dict(cells=2))


@pytest.fixture(scope="module", params=BUNDLED)
def bundled(request):
    return l2l_jax.load(f"bundled:{request.param}_fashion_mnist", **BUNDLED[request.param])


@pytest.fixture(scope="module")
def mae():
    return l2l_jax.load("bundled:mae_fashion_mnist")


@pytest.fixture(scope="module")
def photos():
    source = find("dataset", "fashion_mnist").load("eval")
    return np.stack([source.read(i) for i in range(3)])


@pytest.fixture(scope="module")
def models():
    return l2l_jax.load(finished_run())


def small_file(path, name, **changes):
    """Writes random weights of the smallest model of that name, and loads them as a Model."""
    model = small_model(name, **changes)
    params = jax.tree.map(np.asarray, jax.jit(model.init)(jax.random.key(0)))
    args = dict(find("model", name).SMALLEST) | changes
    safetensors.save(path, params, {"model": name, "args": args})
    return l2l_jax.load(path)


def small_images(count, size=16):
    return np.asarray(random_images(count, size) * 255, np.uint8)


# The package -------------------------------------------------------------------------------------


def test_importing_the_package_is_quick_and_loads_no_jax():
    code = """
import sys, time
before = time.perf_counter()
import l2l_jax
seconds = time.perf_counter() - before
loaded = [name for name in ("jax", "numpy", "flax") if name in sys.modules]
print(seconds, loaded, l2l_jax.__version__, {"run", "load"} <= set(dir(l2l_jax)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    seconds, *rest = done.stdout.split()
    assert rest == ["[]", l2l_jax.__version__, "True"], done.stderr
    assert float(seconds) < 0.2


def test_names_are_found_when_used():
    assert l2l_jax.load is api.load
    assert l2l_jax.run is api.run
    assert l2l_jax.Model is loaded.Model
    assert set(l2l_jax.__all__) <= set(dir(l2l_jax))
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = l2l_jax.laod


@pytest.mark.slow
@pytest.mark.parametrize("module", [api, loaded], ids=lambda m: m.__name__)
def test_examples_in_docstrings(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted
    assert not outcome.failed


@pytest.mark.slow
def test_the_examples_of_the_api_page_run(tmp_path, monkeypatch):
    """On the finished small experiment instead of the demo."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(finished_run())
    (tmp_path / "configs").mkdir()
    config = "from tests.helpers import small_config as get_config\n"
    (tmp_path / "configs" / "fashion_mnist.py").write_text(config)
    text = (ROOT / "docs" / "api.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # load_config adds to it
    names = {}
    for block in blocks:
        exec(block, names)
    assert names["results"] == files.read_json(finished_run() / "results.json")
    assert names["after"].shape == (4, 16, 16, 3)


# Bundled models ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_only_hidden_pixels_are_replaced(bundled, photos):
    completed = bundled.complete(photos, HIDDEN)
    assert completed.dtype == np.uint8
    assert completed.shape == photos.shape
    np.testing.assert_array_equal(completed[:, ~HIDDEN], photos[:, ~HIDDEN])
    assert (completed[:, HIDDEN] != photos[:, HIDDEN]).any()


@pytest.mark.slow
def test_a_seed_decides_everything(bundled, photos):
    first, again = (bundled.complete(photos, HIDDEN, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = bundled.complete(photos, HIDDEN, seed=4)
    assert (first != other).any() == (bundled.name in ("mage", "diffusion"))


@pytest.mark.slow
def test_hidden_pixels_do_not_change_the_completion(bundled, photos):
    inverted = np.where(HIDDEN[..., None], 255 - photos, photos)
    np.testing.assert_array_equal(
        bundled.complete(photos, HIDDEN), bundled.complete(inverted, HIDDEN)
    )


@pytest.mark.slow
def test_a_cell_that_the_mask_touches_is_masked_as_a_whole(mae, photos):
    touched = np.zeros((32, 32), bool)
    touched[8:24, 4:28] = True
    beside = (touched & ~HIDDEN)[..., None]
    one, other = (
        mae.complete(images, HIDDEN) for images in (photos, np.where(beside, 255 - photos, photos))
    )
    np.testing.assert_array_equal(one[:, HIDDEN], other[:, HIDDEN])


@pytest.mark.slow
def test_repr_describes_the_model(bundled):
    text = repr(bundled)
    for part in (bundled.name, "32x32 pixels", "8x8 cells", bundled.digest[:16], "bundled:"):
        assert part in text
    path = ROOT / f"l2l_jax/weights/bundled/{bundled.name}_fashion_mnist.safetensors"
    assert bundled.digest == safetensors.load(path).digest


@pytest.mark.slow
def test_masks_images_and_batches_come_in_several_forms(mae, photos):
    all_at_once = mae.complete(photos, HIDDEN)
    each = np.broadcast_to(HIDDEN, photos.shape[:3])
    np.testing.assert_array_equal(mae.complete(photos, each), all_at_once)
    assert mae.complete(photos[0], HIDDEN).shape == (32, 32, 3)
    in_batches = mae.complete(photos, HIDDEN, batch_size=2)
    assert np.abs(in_batches.astype(int) - all_at_once).max() <= 1
    grey = mae.complete(photos[..., 0], HIDDEN)
    assert grey.shape == (3, 32, 32)
    np.testing.assert_array_equal(grey[:, ~HIDDEN], photos[:, ~HIDDEN][..., 0])
    assert mae.complete(photos[0, ..., 0], HIDDEN).shape == (32, 32)


@pytest.mark.slow
def test_a_task_is_the_mask_that_it_draws(mae, photos):
    block = np.zeros((32, 32), bool)
    block[8:24, 8:24] = True  # the default: 4 cells of 4 pixels
    by_name, by_mask = mae.complete(photos, "center"), mae.complete(photos, block)
    assert np.abs(by_name.astype(int) - by_mask).max() <= 1
    np.testing.assert_allclose(mae.loss(photos, "center"), mae.loss(photos, block), rtol=1e-4)
    small = mae.complete(photos, CENTER)
    np.testing.assert_array_equal(small[:, :12], photos[:, :12])
    assert (small[:, 12:20, 12:20] != photos[:, 12:20, 12:20]).any()


def test_programs_are_compiled_once(mae, photos):
    mae.complete(photos, HIDDEN)
    count = len(mae._programs)
    mae.complete(photos, ~HIDDEN, seed=5)
    assert len(mae._programs) == count
    assert all(program._cache_size() for program in mae._programs.values())


@pytest.mark.slow
def test_checkpoints_are_read_inside_an_event_loop(models):
    """As in a notebook: its cells run inside an event loop."""

    async def cell():
        return l2l_jax.load(finished_run())

    assert asyncio.run(cell()).unlearned.digest == models.unlearned.digest


# Every kind of model -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["autoencoder", "vqgan", "mae", "mage", "diffusion"])
def test_latents_loss_and_tokens(name, tmp_path):
    model = small_file(tmp_path / "a.safetensors", name)
    images, hidden = small_images(3), np.eye(16, dtype=bool)
    loss = model.loss(images, hidden)
    assert loss.shape == (3,)
    assert loss.dtype == np.float32
    assert np.isfinite(loss).all()
    for leaf in jax.tree.leaves(model.latents(images, hidden, batch_size=2)):
        assert isinstance(leaf, np.ndarray)
        assert leaf.dtype == np.float32
        assert len(leaf) == 3
    if name in ("mage", "vqgan"):
        tokens = model.tokens(images)
        assert tokens.shape == (3, *model.grid)
        assert np.issubdtype(tokens.dtype, np.integer)
    else:
        with pytest.raises(ValueError, match=f"{name} makes no tokens"):
            model.tokens(images)


@pytest.mark.slow
def test_convolutional_models_take_other_sizes(tmp_path):
    model = small_file(tmp_path / "a.safetensors", "autoencoder")
    images, hidden = small_images(1, 24), np.zeros((24, 24), bool)
    hidden[:, :7] = True
    completed = model.complete(images, hidden)
    np.testing.assert_array_equal(completed[:, ~hidden], images[:, ~hidden])
    assert model.image_size == 16
    with pytest.raises(ValueError, match=r"16x16 pixels, not 18x18; model.fit.*try image_size=16"):
        model.complete(small_images(1, 18), hidden)


@pytest.mark.slow
def test_a_blended_edge_changes_no_visible_pixel(tmp_path):
    model = small_file(tmp_path / "a.safetensors", "mage", composite="blurred")
    images, hidden = small_images(2), np.zeros((16, 16), bool)
    hidden[5:11, 5:11] = True
    completed = model.complete(images, hidden)
    np.testing.assert_array_equal(completed[:, ~hidden], images[:, ~hidden])


# Wrong input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "hidden", "message"),
    [
        (np.zeros((2, 32, 32, 3)), HIDDEN, r"uint8 from 0 to 255, not float64.*images \* 255"),
        (np.zeros((2, 32, 32, 3), int), HIDDEN, "uint8 from 0 to 255, not int64"),
        (np.zeros((2, 32, 32, 4), np.uint8), HIDDEN, r"not \[2, 32, 32, 4\]"),
        (np.zeros((0, 32, 32, 3), np.uint8), HIDDEN, r"not \[0, 32, 32, 3\]"),
        (np.zeros((2, 28, 28, 3), np.uint8), HIDDEN, "32x32 pixels, not 28x28; model.fit"),
        (np.zeros((2, 32, 64, 3), np.uint8), HIDDEN, "32x32 pixels, not 32x64; model.fit"),
        (np.zeros((2, 32, 32, 3), np.uint8), HIDDEN.astype(int), "boolean mask.*not int64"),
        (np.zeros((2, 32, 32, 3), np.uint8), HIDDEN[:8, :8], r"\[32, 32\] or \[2, 32, 32\], not"),
        (np.zeros((2, 32, 32, 3), np.uint8), np.stack([HIDDEN] * 3), r"not \[3, 32, 32\]"),
        (np.zeros((2, 32, 32, 3), np.uint8), "centre", "Did you mean 'center'"),
        (np.zeros((2, 32, 32, 3), np.uint8), dict(cells=2), "A task is dict"),
        (np.zeros((2, 32, 32, 3), np.uint8), dict(task="center", args=dict(cell=2)), "'cells'"),
    ],
)
def test_wrong_images_and_masks(mae, images, hidden, message):
    with pytest.raises(ValueError, match=message):
        mae.complete(images, hidden)


def test_wrong_batch_size(mae, photos):
    with pytest.raises(ValueError, match="batch_size is at least 1"):
        mae.complete(photos, HIDDEN, batch_size=0)


def test_wrong_sources(tmp_path):
    with pytest.raises(DataMissing, match=r"Bundled are: .*mae_fashion_mnist"):
        l2l_jax.load("bundled:mae")
    with pytest.raises(ConfigError, match="holds no run"):
        l2l_jax.load(tmp_path / "demo")
    with pytest.raises(WrongWeights, match="holds a mae, not a mage"):
        l2l_jax.load("bundled:mae_fashion_mnist", model="mage")
    with pytest.raises(ConfigError, match="Did you mean 'norm_pix'"):
        l2l_jax.load("bundled:mae_fashion_mnist", norm_pixels=True)
    with pytest.raises(WrongWeights, match="heads: 4 there, 2 in"):
        l2l_jax.load("bundled:mae_fashion_mnist", heads=2)


def test_fit_crops_and_resizes(mae):
    several = mae.fit([np.zeros((40, 30), np.uint8), np.full((64, 70, 3), 9, np.uint8)])
    assert several.shape == (2, 32, 32, 3)
    assert (several[1] == 9).all()
    assert mae.fit(np.zeros((64, 70, 3), np.uint8)).shape == (32, 32, 3)
    assert mae.fit(np.zeros((5, 64, 70), np.uint8)).shape == (5, 32, 32, 3)


# Files and workdirs ------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_official_file():
    path, args = unpacked("mae/checkpoint_model.pth"), dict(heads=3, decoder_heads=4)
    with pytest.raises(ConfigError, match=r"Which model is checkpoint_model\.pth"):
        l2l_jax.load(path, **args)
    model = l2l_jax.load(path, model="mae", **args)
    assert model.args["heads"] == 3
    size = model.image_size
    assert model.complete(small_images(1, size), "random").shape == (1, size, size, 3)


def test_settings_of_a_file_can_be_replaced():
    model = l2l_jax.load("bundled:diffusion_fashion_mnist", sample_steps=3, tying="frozen")
    assert "3 of 200 steps" in model.functions.sampling
    assert "embed" in model.params["decoder"], "the parameters follow the tying"


@pytest.mark.slow
def test_a_workdir_has_its_models(models):
    results = files.read_json(finished_run() / "results.json")
    assert list(models) == ["original", "unlearned"]
    for name, model in models.items():
        assert model is getattr(models, name)
        assert model.digest == results["digests"]["weights"][name]
    assert models.original.digest != models.unlearned.digest
    assert models.unlearned.digest == final_weights(finished_run()).digest
    assert models.original.description.startswith("last step of phase pretrain")
    assert models.unlearned.description.startswith("last step of phase unlearn")
    assert models.config["phases"] == ("pretrain", "unlearn")
    assert "unlearned: <Model mae" in repr(models)
    with pytest.raises(AttributeError, match=r"config\.reference is empty"):
        _ = models.retrained


@pytest.mark.slow
def test_completions_are_those_of_the_evaluation(models):
    """The API compiles another program, so rounded pixel values may differ by one."""
    experiment, outcome = read_run(finished_run())
    completer = Completer(experiment, {"unlearned": outcome.final}, {})
    images = small_images(8)
    expected = completer.program("center")(outcome.final, {}, images, jax.random.key(0))
    completed = models.unlearned.complete(images, CENTER)
    assert np.abs(completed.astype(int) - np.asarray(expected["completed"])).max() <= 1
    assert (completed != models.original.complete(images, CENTER)).any()


@pytest.fixture
def changed(tmp_path):
    """changed(key=value): a copy of the finished run with another config."""

    def copy(**changes):
        folder = shutil.copytree(finished_run(), tmp_path / "copy")
        config = files.read_json(folder / "config.json")
        files.write_json(folder / "config.json", config | changes)
        return folder

    return copy


@pytest.mark.slow
def test_a_run_with_a_reference_has_a_retrained_model(changed):
    folder = changed(reference=str(finished_run()))
    models = l2l_jax.load(folder)
    assert list(models) == ["original", "unlearned", "retrained"]
    assert models.retrained.digest == models.unlearned.digest, (
        "the test uses the run as its own reference"
    )
    files.write_json(folder / "reference.json", {"weights": "that run", "digest": "another"})
    with pytest.raises(ConfigError, match="its digest is"):
        l2l_jax.load(folder)


@pytest.mark.slow
def test_a_run_that_only_pretrains_loads_as_one_model(changed, models):
    model = l2l_jax.load(changed(phases=["pretrain"]))
    assert isinstance(model, l2l_jax.Model)
    assert model.digest == models.original.digest


@pytest.mark.slow
def test_a_run_that_is_not_finished(changed, models):
    settings = files.read_json(finished_run() / "config.json")["unlearn"]
    folder = changed(unlearn=settings | {"steps": 7})
    with pytest.raises(ConfigError, match=r"unlearn is at step 6 of 7.*partial=True"):
        l2l_jax.load(folder)
    partial = l2l_jax.load(folder, partial=True)
    assert partial.unlearned.digest == models.unlearned.digest
    assert partial.unlearned.description.startswith("step 6 of 7 of phase unlearn")
