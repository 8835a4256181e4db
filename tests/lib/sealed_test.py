"""Cache entries: what is written is read back, and no damage is."""

import io

import numpy as np
import pytest

from l2l_jax.lib import sealed
from tests.helpers import DAMAGE

ARRAY = np.arange(3000, dtype=np.int32)


def save(path, key="a"):
    sealed.write(path, key, lambda file: np.save(file, ARRAY))


def test_the_content_is_read_back(tmp_path):
    path = tmp_path / "x.npy"
    save(path)
    assert np.array_equal(np.load(io.BytesIO(sealed.read(path, "a"))), ARRAY)
    assert np.array_equal(np.load(path, mmap_mode="r"), ARRAY), "readers ignore the digest"
    assert sealed.check(path, "a")
    assert sealed.opened(path.read_bytes(), "a") == path.read_bytes()[: -sealed.SIZE]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_noticed(damage, tmp_path, caplog):
    path = tmp_path / "x.npy"
    save(path)
    DAMAGE[damage](path)
    assert sealed.read(path, "a") is None
    assert not sealed.check(path, "a")
    logged = 0 if damage == "deleted" else 2
    assert caplog.text.count("made again") == logged
    assert (f"{path} " in caplog.text) == (logged > 0)


@pytest.mark.parametrize("at", [0, 100, -1, -33, -40])
def test_each_byte_counts(at, tmp_path):
    path = tmp_path / "x.npy"
    save(path)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert sealed.read(path, "a") is None
    assert not sealed.check(path, "a")


def test_the_file_of_another_entry_is_noticed(tmp_path):
    save(tmp_path / "x.npy", "other")
    assert sealed.read(tmp_path / "x.npy", "a") is None
    assert not sealed.check(tmp_path / "x.npy", "a")


def test_a_cache_that_cannot_be_written(tmp_path, caplog):
    (tmp_path / "file").touch()
    sealed.write_if_possible(tmp_path / "file" / "x", "a", lambda file: file.write(b"x"))
    assert "is not kept for the next run" in caplog.text
    assert sealed.read(tmp_path / "file" / "x", "a") is None
