"""Exact duplicates across sides are found by their pixels, and stop a run unless it allows them."""

import numpy as np
import pytest
from PIL import Image

from l2l_jax.data import duplicates, image_folder, splits
from l2l_jax.datasets import fashion_mnist, folder
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.preemption import StopSignal
from tests.helpers import small_config


@pytest.fixture
def pets(tmp_path):
    """Twenty different images; dogs/copy.png has the pixels of cats/3.png in another file."""
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(10):
            image = Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8))
            image.save(tmp_path / "pets" / name / f"{i}.png")
    copied = Image.open(tmp_path / "pets" / "cats" / "3.png")
    copied.save(tmp_path / "pets" / "dogs" / "copy.bmp")
    return tmp_path / "pets"


def config_of(pets, **changes):
    config = small_config()
    config.data.name = "folder"
    config.data.args = dict(root=str(pets), eval_fraction=0.3)
    config.split.forget.classes = ("cats",)
    config.split.update(changes)
    return config


@pytest.mark.slow
def test_equal_pixels_on_two_sides_stop_the_run_before_it_claims_the_workdir(pets, tmp_path):
    message = (
        r"(?s)1 images to forget have the same pixels as an image of another side:\n"
        r"  cats/3\.png of forget(_eval)?, dogs/copy\.bmp of retain(_eval)?\nNone can be .*"
        r"--config\.split\.duplicates=allow"
    )
    with pytest.raises(ConfigError, match=message):
        preflight(resolve(config_of(pets)), tmp_path / "run", StopSignal())
    assert not (tmp_path / "run" / "config.json").exists()
    (pets / "dogs" / "copy.bmp").unlink()
    preflight(resolve(config_of(pets)), tmp_path / "run", StopSignal())


def test_allowed_duplicates_give_a_warning(pets, caplog):
    source = folder.load("train", root=str(pets), eval_fraction=0.01)
    whole = {
        name: splits.pick(name, "train", source, np.flatnonzero(source.labels == label))
        for label, name in enumerate(("forget", "retain"))
    }
    digests = {
        name: image_folder.read_all(source, split.indices)[1] for name, split in whole.items()
    }
    sources = {"train": source}
    duplicates.check(whole, digests, sources, "allow")
    assert "cats/3.png of forget, dogs/copy.bmp of retain" in caplog.text
    colliding = digests | {"retain": digests["retain"] * 0 + digests["forget"][0]}
    assert duplicates.across_sides(whole, colliding, sources) == [], "equal digests are confirmed"


def test_digests_depend_on_shape_and_pixels():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert duplicates.digest(image) == duplicates.digest(image.copy())
    assert duplicates.digest(image) == duplicates.digest(image[:, ::-1][:, ::-1])
    assert duplicates.digest(image) != duplicates.digest(image.reshape(4, 2, 3))
    assert duplicates.digest(image) != duplicates.digest(image + 1)


def test_the_bundled_images_have_no_duplicates():
    digests = []
    for part in ("train", "eval"):
        images, _, _ = fashion_mnist._arrays(part)
        digests += [image.tobytes() for image in images]
    assert len(set(digests)) == len(digests) == 15_500
