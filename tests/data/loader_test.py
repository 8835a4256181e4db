"""A batch is a function of (seed, step, host, hosts), and nothing else."""

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from l2l_jax.data import image_cache, images, loader
from l2l_jax.data.loader import Host, Subset
from l2l_jax.types import Source
from tests.helpers import ROOT


def source(count=37, size=12):
    rows = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    rows[:, 0, 0, 0] = np.arange(count)  # the example's number, which the plain crop keeps
    keys = tuple(f"{i:03d}" for i in range(count))
    return Source(keys, np.zeros(count, np.int32), ("all",), lambda at: rows[at])


PLAIN = images.augmentation(12, (), flip=False)
RICH = images.augmentation(8, (0.2, 1.0), flip=True)


def first(stream, count):
    rows = list(itertools.islice(stream, count))
    stream.close()
    return np.stack(rows)


def batches(count, augment=RICH, batch=8, seed=3, start=0, host=Host(), data=None):  # noqa: B008
    subset = Subset(data or source(), np.arange(37))
    return first(loader.train_batches(subset, augment, batch, seed, start, host), count)


def test_resuming_at_any_step_gives_the_same_batches():
    whole = batches(9)
    for start in (1, 4, 8):
        assert np.array_equal(batches(9 - start, start=start), whole[start:])


@pytest.mark.parametrize("hosts", [2, 4])
def test_any_number_of_hosts_reads_the_same_global_batch(hosts):
    parts = [batches(6, host=Host(h, hosts, threads=2)) for h in range(hosts)]
    assert np.array_equal(np.concatenate(parts, axis=1), batches(6))


@pytest.mark.parametrize("kind", ["memory", "disk"])
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_a_cache_changes_nothing(hosts, kind, tmp_path, monkeypatch):
    """Two epochs: images are cached in the first, and read from the cache in the second."""
    monkeypatch.setenv("L2L_CACHE", str(tmp_path))
    seen, plain = [], source()
    counted = replace(plain, read=lambda at: (seen.append(at), plain.read(at))[1], stamp=str)
    cached = image_cache.cached({"train": counted}, {"train": np.arange(37)}, kind)["train"]
    read = [batches(12, host=Host(h, hosts, threads=2), data=cached) for h in range(hosts)]
    assert np.array_equal(np.concatenate(read, axis=1), batches(12))
    assert len(seen) < 2 * 37, "several threads may decode an image at the same time"


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_the_number_of_threads_changes_nothing(threads):
    assert np.array_equal(batches(6, host=Host(threads=threads)), batches(6))


def test_an_epoch_has_every_example_once_in_an_order_of_its_own():
    seen = batches(37, augment=PLAIN, batch=2)[..., 0, 0, 0].reshape(2, 37)
    for epoch in seen:
        assert sorted(epoch) == list(range(37))
    assert not np.array_equal(*seen)


def test_another_seed_gives_another_order():
    assert not np.array_equal(batches(2, seed=3), batches(2, seed=4))


def test_fewer_examples_than_a_batch_are_repeated():
    subset = Subset(source(), [5, 7, 9])
    rows = first(loader.train_batches(subset, PLAIN, 8, 0, 0, Host()), 3)
    numbers, counts = np.unique(rows[..., 0, 0, 0], return_counts=True)
    assert numbers.tolist() == [5, 7, 9]
    assert counts.tolist() == [8, 8, 8]


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_evaluation_goes_through_every_example_in_order(hosts):
    parts = []
    for host in range(hosts):
        stream = loader.eval_batches(Subset(source(), range(37)), 12, 8, Host(host, hosts))
        parts.append(np.stack(list(stream)))
    rows = np.concatenate(parts, axis=1).reshape(-1, 12, 12, 3)
    assert rows.shape[0] == 40, "the last batch is filled up"
    assert rows[:, 0, 0, 0].tolist() == [*range(37), 36, 36, 36]


WORKERS = """
import sys
sys.path.insert(0, {root!r})
import numpy as np
from tests.data.loader_test import batches
from l2l_jax.data.loader import Host
if __name__ == "__main__":
    assert np.array_equal(batches(5, start=2, host=Host(workers=2)), batches(5, start=2))
    print("same")
"""


@pytest.mark.slow
def test_worker_processes_read_the_same(tmp_path):
    script = tmp_path / "workers.py"
    script.write_text(WORKERS.format(root=str(ROOT)))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=200
    )
    assert done.stdout.strip() == "same", done.stderr


@pytest.mark.parametrize("hosts", [1, 2])
def test_rows_of_step_are_those_that_train_batches_reads(hosts):
    """Over more than one epoch, which ends in the middle of a batch."""
    for index in range(hosts):
        host = Host(index, hosts, threads=2)
        read = batches(11, augment=PLAIN, host=host)
        rows = [loader.rows_of_step(37, 8, 3, step, host) for step in range(11)]
        assert np.array_equal(read[:, :, 0, 0, 0], rows)
