"""A finished small run that forgot a list of images from a folder, shared by several tests."""

import shutil

import numpy as np
import pytest
from PIL import Image

from l2l_jax.engine.run import run
from tests.helpers import once, small_config

CLASSES = ("cats", "dogs")
LISTED = [f"{name}/{at}.png" for name in CLASSES for at in range(3)]
ABSENT = "cats/unknown.png"  # a line of the list that no image has
NEAR, OF = "cats/near.png", "cats/0.png"  # a near copy of a listed image


def picture(key):
    """The image of a key: noise, uint8 [20, 20, 3]."""
    name, stem = key.removesuffix(".png").split("/")
    if key == NEAR:
        moved = np.random.default_rng(9).integers(-3, 4, (20, 20, 3))
        return np.clip(picture(OF).astype(int) + moved, 0, 255).astype(np.uint8)
    seed = CLASSES.index(name), int(stem)
    return np.random.default_rng(seed).integers(0, 256, (20, 20, 3), np.uint8)


def images():
    """{key: uint8 image} of the listed images."""
    return {key: picture(key) for key in LISTED}


def folder():
    """The folder with `mine` (the data), `delete.txt`, `cache` and `run`; read-only."""
    return once("listed", _make)


def copy(target, monkeypatch):
    """Copies cache and workdir to a folder, and makes the cache there that of the program."""
    for name in ("cache", "run"):
        shutil.copytree(folder() / name, target / name)
    monkeypatch.setenv("L2L_CACHE", str(target / "cache"))


def _make(folder):
    for name in CLASSES:
        for key in [f"{name}/{at}.png" for at in range(16)]:
            path = folder / "mine" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(key)).save(path)
    Image.fromarray(picture(NEAR)).save(folder / "mine" / NEAR)
    (folder / "delete.txt").write_text("\n".join([*LISTED, ABSENT]))
    config = small_config()
    config.data.update(dict(name="folder", cache="disk"))
    config.data.args = dict(root=str(folder / "mine"), train="", eval="", eval_fraction=0.25)
    config.split.forget.update(dict(classes=(), files=str(folder / "delete.txt")))
    config.split.missing = "skip"
    config.report.show_forgotten = True
    config.evaluators = dict(reconstruction=dict())
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("L2L_CACHE", str(folder / "cache"))
        run(config, folder / "run")
