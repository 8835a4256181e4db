"""Synthetic trees: written once, and again if a file of them is damaged."""

import os
import time

import pytest

from l2l_jax.data import synthetic
from l2l_jax.lib import files
from l2l_jax.lib.errors import NotSaved
from tests.helpers import DAMAGE

IMAGES = [("a/1.jpg", 0), ("b/2.jpg", 1)]


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setenv("L2L_CACHE", str(tmp_path))
    return lambda: synthetic.write_tree("small", IMAGES, {"list.txt": "x"})


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["a/1.jpg", "list.txt", ".sha256"])
def test_a_damaged_tree_is_written_again(name, damage, write, caplog):
    path = write() / name
    content = path.read_bytes()
    DAMAGE[damage](path)
    assert (write() / name).read_bytes() == content
    assert caplog.text.count("is made again") == 1
    assert write() == path.parents[name.count("/")]
    assert caplog.text.count("is made again") == 1, "it is intact now"


def test_leftovers_of_killed_processes_are_removed(tmp_path, write):
    left = tmp_path / "synthetic" / f".small-0.x{files.TEMPORARY}"
    (left / "a").mkdir(parents=True)
    day_ago = time.time() - files.STALE_SECONDS - 60
    os.utime(left, (day_ago, day_ago))
    write()
    assert not left.exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path, write):
    (tmp_path / "synthetic").touch()
    with pytest.raises(NotSaved, match=r"small-.* could not be written: .* move it away"):
        write()
