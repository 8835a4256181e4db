"""The image cache: equal pixels, each image decoded once, changed files, and clear refusals."""

import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from l2l_jax.data import image_cache, image_folder
from l2l_jax.lib import files, sealed
from l2l_jax.lib.errors import BrokenImage, ConfigError
from l2l_jax.types import Source
from tests.helpers import DAMAGE


def picture(path, seed=0, size=(30, 20)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Six images of two classes, all of different sizes, and an empty cache."""
    monkeypatch.setenv("L2L_CACHE", str(tmp_path / "cache"))
    for i in range(6):
        picture(tmp_path / "data" / "ab"[i % 2] / f"{i}.jpg", seed=i, size=(30 + i, 20))
    return tmp_path / "data"


def counted(folder):
    """(the folder as a Source, the list of rows that it has decoded so far)."""
    found = image_folder.keys_by_class(folder)
    source, seen = image_folder.source(folder, found, list(found), "here"), []

    def read(at):
        seen.append(at)
        return source.read(at)

    return replace(source, read=read), seen


def with_cache(source, rows, kind):
    return image_cache.cached({"train": source}, {"train": np.array(rows)}, kind)["train"]


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_images_are_equal_and_decoded_once(folder, kind):
    plain, _ = counted(folder)
    source, seen = counted(folder)
    kept = with_cache(source, range(6), kind)
    for at in [*range(6), *range(6), np.int64(3)]:
        image = kept.read(at)
        assert image.dtype == np.uint8
        assert np.array_equal(image, plain.read(at))
        assert not image.flags.writeable, "several readers share it"
    assert sorted(seen) == list(range(6))
    assert (kept.keys, kept.classes) == (plain.keys, plain.classes)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_only_the_chosen_images_are_cached(folder, kind):
    source, seen = counted(folder)
    kept = with_cache(source, [1, 2], kind)
    for at in (0, 0, 1, 1):
        kept.read(at)
    assert seen.count(0) == 2
    assert seen.count(1) == 1
    assert image_cache.cached({"train": source}, {"train": np.arange(6)}, "")["train"] is source


def test_a_later_run_uses_the_files_of_unchanged_images(folder):
    source, _ = counted(folder)
    for at in range(6):
        with_cache(source, range(6), "disk").read(at)
    later, seen = counted(folder)
    kept = with_cache(later, range(6), "disk")
    assert np.array_equal(kept.read(0), source.read(0))
    assert seen == []
    changed = folder / source.keys[0]
    there = changed.stat()
    picture(changed, seed=99)
    os.utime(changed, ns=(there.st_atime_ns, there.st_mtime_ns + 1))
    assert np.array_equal(kept.read(0), source.read(0)), "the changed image"
    assert seen == [0]


def test_a_damaged_file_is_written_again(folder):
    source, seen = counted(folder)
    kept = with_cache(source, range(6), "disk")
    right = kept.read(2)
    path = image_cache.path_of(files.cache_dir() / "images", source.stamp(2))
    for damage in DAMAGE.values():
        whole = path.read_bytes()
        damage(path)
        os.utime(path.parent)
        assert np.array_equal(kept.read(2), right)
        if path.is_dir():
            path.rmdir()
        else:
            assert path.read_bytes() == whole
    assert seen == [2] * (1 + len(DAMAGE))


def test_the_file_of_another_image_is_not_used(folder, caplog):
    source, _ = counted(folder)
    kept = with_cache(source, range(6), "disk")
    images = files.cache_dir() / "images"
    here, other = (image_cache.path_of(images, source.stamp(row)) for row in (2, 3))
    right = kept.read(2)
    kept.read(3)
    shutil.copy(other, here)
    later = with_cache(source, range(6), "disk")
    assert np.array_equal(later.read(2), right)
    assert caplog.text.count("does not fit its digest") == 1


def test_the_digest_is_checked_once(folder, monkeypatch):
    source, _ = counted(folder)
    with_cache(source, range(6), "disk").read(2)
    later, checks, opened = with_cache(source, range(6), "disk"), [], sealed.opened
    monkeypatch.setattr(sealed, "opened", lambda *a: checks.append(a) or opened(*a))
    for _ in range(3):
        assert np.array_equal(later.read(2), source.read(2))
    assert len(checks) == 1


def test_a_full_disk_gives_one_warning_and_no_error(folder, monkeypatch, caplog):
    tried = []

    def full(path):
        tried.append(path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "atomic_write", full)
    source, _ = counted(folder)
    kept = with_cache(source, range(6), "disk")
    for at in (0, 1, 1):
        assert np.array_equal(kept.read(at), source.read(at))
    assert len(tried) == 1
    assert caplog.text.count("takes no more images") == 1
    assert "No space left" in caplog.text


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_broken_image_raises_with_a_cache_too(folder, kind):
    (folder / "a" / "0.jpg").write_bytes(b"no image")
    source, _ = counted(folder)
    with pytest.raises(BrokenImage, match=r"0\.jpg"):
        with_cache(source, range(6), kind).read(0)
    (folder / "a" / "2.jpg").unlink()
    with pytest.raises(BrokenImage, match=r"2\.jpg"):
        with_cache(source, range(6), kind).read(1)


def test_more_images_than_fit_into_memory(folder, monkeypatch):
    source, seen = counted(folder)
    monkeypatch.setattr(image_cache, "free_memory", lambda: 12_000.0)
    monkeypatch.setattr(image_cache, "SIZED_IMAGES", 3)
    with pytest.raises(ConfigError, match=r"6 images in about .* GB are free.*cache=disk") as error:
        with_cache(source, range(6), "memory")
    assert len(seen) == 3, "the size of all is estimated from a few"
    with pytest.raises(ConfigError) as error:
        image_cache.check_memory(5e9, 24_000, 4e9)
    assert re.search(r"24,000 images in about 5\.0 GB, and 4\.0 GB are free", str(error.value))
    image_cache.check_memory(3e9, 24_000, 4e9)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_cached_images_are_read_only(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("L2L_CACHE", str(tmp_path))
    own = np.zeros((4, 4, 3), np.uint8)
    source = Source(("x",), np.zeros(1, np.int32), ("all",), lambda at: own, stamp=str)
    kept = with_cache(source, [0], kind)
    own[:] = 1
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            kept.read(0)[:] = 7
    assert own.flags.writeable, "the array of the source stays writable"


def test_free_memory_is_plausible():
    assert 1e6 < image_cache.free_memory() < 1e14


def test_what_cannot_be_cached_is_refused():
    bare = Source(("x",), np.zeros(1, np.int32), ("all",), lambda at: np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"needs a data set of files.*cache=memory"):
        with_cache(bare, [0], "disk")
    with pytest.raises(ConfigError, match="'', 'memory' or 'disk', not 'ram'"):
        image_cache.check("ram", 0)
    with pytest.raises(ConfigError, match=r"workers=2: every one .*cache=disk"):
        image_cache.check("memory", 2)
    image_cache.check("disk", 2)
