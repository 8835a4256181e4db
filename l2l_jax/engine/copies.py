"""Copies of the images of a list among all other images of a run: exact ones, and near ones.

An exact copy has equal decoded pixels. A near copy is not equal; its difference hash differs in at
most BITS bits, and its pixels, at the size that the model sees, by at most APART of 255 in the root
mean square. The hash finds other sizes, other JPEG qualities and small changes of one photograph;
the pixels keep two different images with equal large shapes apart. Mirrored, rotated and strongly
cropped copies are not found. All images of the run's splits are looked at, and no others.
"""

import concurrent.futures
import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8, UInt64

from l2l_jax.data import duplicates
from l2l_jax.data.images import resize_crop
from l2l_jax.engine.experiment import Experiment
from l2l_jax.lib.errors import BrokenImage

log = logging.getLogger(__name__)

BITS = 4  # of 64
APART = 16.0  # of 255
MOST_COMPARED = 200  # images with a near hash whose pixels are compared, for each listed one
BLOCK = 256  # images that a thread reads at a time

Place = tuple[str, int]  # (part, row of its source)


@dataclasses.dataclass(frozen=True)
class Copies:
    """The copies of one image."""

    exact: tuple[Place, ...]
    near: tuple[Place, ...]


def find(experiment: Experiment, listed: Sequence[Place]) -> dict[Place, Copies]:
    """The copies of each listed image among the images of the splits that are not listed.

    An image that cannot be read has none.
    """
    places = [*dict.fromkeys([*listed, *_all_places(experiment)])]
    log.info("looking for copies of %d images among %d", len(listed), len(places))
    digests, hashes = _described(experiment, places)
    others, found = np.arange(len(listed), len(places)), {}
    for at, place in enumerate(listed):
        if not digests[at]:
            found[place] = Copies((), ())
            continue
        equal = digests[others] == digests[at]
        alike = np.bitwise_count(hashes[others] ^ hashes[at]) <= BITS
        near = others[alike & ~equal & (digests[others] != 0)][:MOST_COMPARED]
        exact = [places[row] for row in others[equal]]
        close = [places[row] for row in near if _distance(experiment, place, places[row]) <= APART]
        found[place] = Copies(tuple(exact), tuple(close))
    return found


def where(experiment: Experiment, copies: Sequence[Place]) -> dict[str, int]:
    """{split: how many of the images are in it}."""
    split_of = {
        (split.part, int(row)): name
        for name, split in experiment.splits.items()
        for row in split.indices
    }
    return dict(Counter(split_of[place] for place in copies))


def _all_places(experiment: Experiment) -> Iterator[Place]:
    for split in experiment.splits.values():
        yield from ((split.part, row) for row in split.indices.tolist())


def _described(
    experiment: Experiment, places: Sequence[Place]
) -> tuple[UInt64[np.ndarray, " N"], UInt64[np.ndarray, " N"]]:
    """(digests of the pixels, difference hashes) of images; both 0 where one cannot be read."""
    blocks = [places[at : at + BLOCK] for at in range(0, len(places), BLOCK)]
    with concurrent.futures.ThreadPoolExecutor(experiment.host.threads) as pool:
        parts = list(pool.map(lambda block: [_describe(experiment, x) for x in block], blocks))
    pairs = np.array([pair for part in parts for pair in part], np.uint64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _describe(experiment: Experiment, place: Place) -> tuple[int, int]:
    part, row = place
    try:
        image = experiment.sources[part].read(row)
    except BrokenImage:
        return 0, 0
    bits = duplicates.hashes(resize_crop(image, experiment.model.image_size)[None])[0]
    return duplicates.digest(image), int.from_bytes(np.packbits(bits).tobytes())


def _distance(experiment: Experiment, one: Place, other: Place) -> float:
    """The root mean square difference of two images at the size of the model, of 255."""
    first, second = (small(experiment, place).astype(np.float32) for place in (one, other))
    return float(np.sqrt(np.mean((first - second) ** 2)))


def small(experiment: Experiment, place: Place) -> UInt8[np.ndarray, "S S 3"]:
    """The central square of an image, at the size of the model."""
    part, row = place
    return resize_crop(experiment.sources[part].read(row), experiment.model.image_size)
