"""A purge leaves no pixel of the listed images below the cache and the workdir."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from l2l_jax.data.images import resize_crop
from l2l_jax.engine.purge import purge
from l2l_jax.lib.errors import ConfigError
from l2l_jax.record import __main__ as command
from l2l_jax.record.verify import verify
from l2l_jax.registry import find
from l2l_jax.workdir import claim
from tests import listed_run

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """(folder, listed images {key: uint8}): a cache and a workdir that the test may change."""
    listed_run.copy(tmp_path, monkeypatch)
    return tmp_path, listed_run.images()


def squares(path, sides):
    """All squares of these sides that a file holds, as bytes: arrays, pictures, raw pixels."""
    data = path.read_bytes()
    if path.suffix == ".rgb":
        yield from (data[8 : 8 + 3 * side * side] for side in sides)
    elif path.suffix == ".npz":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                array = np.load(io.BytesIO(archive.read(name)))
                if array.ndim == 4:
                    yield from (np.ascontiguousarray(x).tobytes() for x in array)
    elif path.suffix == ".png":
        sheet = np.asarray(Image.open(path).convert("RGB"))
        for side in sides:
            for top in range(sheet.shape[0] - side + 1):
                for left in range(sheet.shape[1] - side + 1):
                    yield sheet[top : top + side, left : left + side].tobytes()


def holders(folder, listed):
    """The files below the cache and the workdir that hold a listed image."""
    size = find("model", "mae").SMALLEST["image_size"]
    wanted = {image.tobytes() for image in listed.values()}
    wanted |= {resize_crop(image, size).tobytes() for image in listed.values()}
    files = (p for name in ("cache", "run") for p in (folder / name).rglob("*") if p.is_file())
    return {path for path in files if not wanted.isdisjoint(squares(path, (20, size)))}


def test_no_copy_is_left(copy):
    folder, listed = copy
    before = holders(folder, listed)
    assert {path.suffix for path in before} >= {".rgb", ".npz"}, "the run made copies"
    found = purge(folder / "run", dry_run=True)
    assert before <= {*found.removed}
    assert holders(folder, listed) == before, "a dry run removes nothing"
    made = purge(folder / "run")
    assert made.removed == found.removed
    assert not holders(folder, listed)
    assert not list((folder / "run" / "images").glob("*forget*"))
    assert (folder / "run" / "checkpoints" / "pretrain").is_dir()
    assert any("the phases pretrain" in line for line in made.beyond)
    again = purge(folder / "run")
    assert not {*again.removed} - {folder / "run" / "report.html"}, "nothing is left to remove"
    assert verify(folder / "run").intact, "the page and the record are made again"


def test_checkpoints_of_the_original_go_if_asked(copy, capsys):
    folder, _ = copy
    command.main(["purge", str(folder / "run"), "--checkpoints"])
    said = capsys.readouterr().out
    assert f"removed: {folder / 'run' / 'checkpoints' / 'pretrain'}" in said
    assert not (folder / "run" / "checkpoints" / "pretrain").exists()
    assert (folder / "run" / "checkpoints" / "unlearn").is_dir(), "the result stays"
    assert "not reached: the images themselves" in said


def test_a_workdir_in_use_is_not_purged(copy):
    folder, listed = copy
    before = holders(folder, listed)
    with claim.lock(folder / "run"), pytest.raises(ConfigError, match="Another process"):
        purge(folder / "run")
    assert holders(folder, listed) == before
