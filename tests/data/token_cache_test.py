"""Tokens on disk: what they depend on, how they are continued, and when an error is raised."""

import shutil

import numpy as np
import pytest

from l2l_jax.data import images, splits, token_cache
from l2l_jax.data.loader import Host
from l2l_jax.lib import files, hosts, sealed
from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Source
from tests.helpers import DAMAGE

COUNT = 20
FILE_DAMAGE = [name for name in DAMAGE if name != "a folder"]
RICH = images.augmentation(8, (0.2, 1.0), flip=True)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(token_cache, "SHARD", 6)
    token_cache._shard.cache_clear()


def source(seed=0):
    rows = np.random.default_rng(seed).integers(0, 256, (COUNT, 12, 12, 3), np.uint8)
    keys = tuple(f"{i:03d}" for i in range(COUNT))
    return Source(keys, np.zeros(COUNT, np.int32), ("all",), lambda at: rows[at])


def tokenize(pictures):
    """[N, 8, 8, 3] -> [N, 4, 4]: differs between images."""
    return pictures.reshape(len(pictures), 4, 2, 4, 2, 3).sum((2, 4, 5), dtype=np.int64) % 97


def fill(folder, rows=range(COUNT), views=3, host=Host(), seed=0, by=tokenize, settings={}):  # noqa: B006, B008
    data = source(seed)
    split = splits.pick("retain", "train", data, np.array(rows))
    return token_cache.load_or_compute(folder, data, split, views, RICH, by, host, settings)


def test_a_view_is_the_tokens_of_an_augmented_image(tmp_path):
    kept = fill(tmp_path)
    assert len(kept) == COUNT
    assert kept[0].shape == (3, 4, 4)
    assert kept[0].dtype == np.uint16
    assert len({kept[7][view].tobytes() for view in range(3)}) == 3, "views differ"
    rng = np.random.default_rng(0)
    drawn = {token_cache.draw_view(kept[7], rng).tobytes() for _ in range(30)}
    assert drawn == {view.tobytes() for view in kept[7]}, "each of them is drawn"


def test_an_image_has_the_same_views_in_every_split(tmp_path):
    whole, part = fill(tmp_path), fill(tmp_path, rows=[3, 11, 19])
    for at, row in enumerate((3, 11, 19)):
        np.testing.assert_array_equal(part[at], whole[row])


def test_a_stopped_computation_continues(tmp_path):
    whole = np.stack(list(fill(tmp_path / "a")))
    calls = []

    def stops(pictures):
        calls.append(len(pictures))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return tokenize(pictures)

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "b", by=stops)
    assert len(list((tmp_path / "b").rglob("*.npy"))) == 2
    assert not list((tmp_path / "b").rglob("*.tmp"))
    calls = []
    continued = fill(tmp_path / "b", by=lambda x: calls.append(len(x)) or tokenize(x))
    assert calls == [3, 3, 18, 6], "checks of two shards, and the two missing shards"
    np.testing.assert_array_equal(np.stack(list(continued)), whole)


def test_processes_share_the_work(tmp_path):
    for index, count in ((0, 2), (1, 4)):
        fill(tmp_path, host=Host(index, 2))
        assert len(list(tmp_path.rglob("*.npy"))) == count
    kept = np.stack(list(token_cache.TokenViews(next(tmp_path.iterdir()), COUNT)))
    np.testing.assert_array_equal(kept, np.stack(list(fill(tmp_path / "alone"))))


def test_a_folder_that_is_not_shared_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        hosts, "is_main", lambda: False
    )  # the main process wrote to another file system
    with pytest.raises(ConfigError, match=r"runtime\.token_folder be on a file system that they"):
        token_cache.record_settings(tmp_path, {"tokenizer": "aaaa"})


def test_images_that_changed_are_noticed(tmp_path):
    fill(tmp_path)
    with pytest.raises(ConfigError, match="files have changed since"):
        fill(tmp_path, seed=1)


@pytest.mark.parametrize("damage", [*FILE_DAMAGE, "edited", "of another split"])
def test_a_damaged_shard_is_made_again(damage, tmp_path, caplog):
    whole = np.stack(list(fill(tmp_path)))
    fill(tmp_path / "other", rows=range(2, COUNT))
    (other,), (shard,) = (tmp_path / "other").rglob("00001.npy"), tmp_path.glob("*/00001.npy")
    if damage == "edited":
        data = bytearray(shard.read_bytes())
        data[-sealed.SIZE - 1] ^= 1  # in the last image: the first one is still right
        shard.write_bytes(data)
    elif damage == "of another split":
        shutil.copy(other, shard)
    else:
        DAMAGE[damage](shard)
    np.testing.assert_array_equal(np.stack(list(fill(tmp_path))), whole)
    assert caplog.text.count("made again") == (damage != "deleted")
    caplog.clear()
    fill(tmp_path)
    assert not caplog.text, "it is right now"


def test_shards_of_other_settings_are_made_again(tmp_path, caplog):
    """The record of settings is lost, and another run uses the folder."""
    fill(tmp_path, settings={"crop": (0.2, 1.0)})
    fill(tmp_path, settings={"crop": [0.2, 1.0]})
    assert not caplog.text
    fill(tmp_path, settings={"crop": (0.5, 1.0)})
    assert caplog.text.count("does not fit its digest") == 4


@pytest.mark.parametrize("damage", FILE_DAMAGE)
def test_a_damaged_record_of_settings_is_written_again(damage, tmp_path, caplog):
    token_cache.record_settings(tmp_path, {"views": 3})
    DAMAGE[damage](tmp_path / "about.json")
    token_cache.record_settings(tmp_path, {"views": 3})
    assert caplog.text.count("It is written again") == (damage != "deleted")
    assert files.read_json(tmp_path / "about.json") == {"views": 3}


def test_a_cache_of_another_tokenizer_is_refused(tmp_path):
    about = {"tokenizer": "aaaa", "crop": (0.2, 1.0), "views": 3}
    token_cache.record_settings(tmp_path, about)
    token_cache.record_settings(tmp_path, about)
    said = r"another tokenizer\.\n  tokenizer: 'aaaa' there, 'bbbb'"
    with pytest.raises(ConfigError, match=said):
        token_cache.record_settings(tmp_path, about | {"tokenizer": "bbbb"})
    with pytest.raises(ConfigError, match=r"other settings.\n  views: 3 there, 4 in this run"):
        token_cache.record_settings(tmp_path, about | {"views": 4})
