"""Tokens on disk: what they depend on, how they are continued, and when an error is raised."""

import numpy as np
import pytest

from l2l_jax.data import images, splits, token_cache
from l2l_jax.data.loader import Host
from l2l_jax.lib import hosts
from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Source

COUNT = 20
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


def fill(folder, rows=range(COUNT), views=3, host=Host(), seed=0, by=tokenize):  # noqa: B008
    data = source(seed)
    split = splits.pick("retain", "train", data, np.array(rows))
    return token_cache.load_or_compute(folder, data, split, views, RICH, by, host)


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
    (shard,) = tmp_path.rglob("00002.npy")
    np.save(shard, np.zeros_like(np.load(shard)))
    token_cache._shard.cache_clear()
    with pytest.raises(ConfigError, match=r"00002\.npy holds other tokens"):
        fill(tmp_path)


def test_a_cache_of_another_tokenizer_is_refused(tmp_path):
    about = {"tokenizer": "aaaa", "crop": (0.2, 1.0), "views": 3}
    token_cache.record_settings(tmp_path, about)
    token_cache.record_settings(tmp_path, about)
    said = r"another tokenizer\.\n  tokenizer: 'aaaa' there, 'bbbb'"
    with pytest.raises(ConfigError, match=said):
        token_cache.record_settings(tmp_path, about | {"tokenizer": "bbbb"})
    with pytest.raises(ConfigError, match=r"other settings.\n  views: 3 there, 4 in this run"):
        token_cache.record_settings(tmp_path, about | {"views": 4})
