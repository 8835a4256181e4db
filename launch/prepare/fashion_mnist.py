"""Creates the bundled subset of Fashion-MNIST from the original files.

    python launch/prepare/fashion_mnist.py /usr/share/datasets/fashion-mnist

The folder holds the four *-ubyte.gz files of Zalando's release (Debian: dataset-fashion-mnist). The
subset consists of the first images of every class, 1,300 of the training and 250 of the test part,
in the original order, so that it is the same on every machine.
"""

import argparse
import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

IMAGES_PER_CLASS = {"train": 1300, "eval": 250}
NAMES = {"train": "train", "eval": "t10k"}  # {part: what its files begin with}
TARGET = Path(__file__).parents[2] / "l2l_jax" / "datasets" / "bundled" / "fashion_mnist.npz"


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in a gzipped IDX file. ValueError if it has another type.

    The format: two zeros, the type (8: bytes), the number of axes, their sizes, the values.
    """
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an IDX file of bytes.")
    shape = np.frombuffer(data, ">i4", data[3], 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def subset(folder: Path) -> dict[str, Any]:
    """{part_images: uint8 [N, 28, 28], part_labels: uint8 [N], part_rows: int32 [N]}."""
    arrays = {}
    for part, name in NAMES.items():
        images = read_idx(folder / f"{name}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{name}-labels-idx1-ubyte.gz")
        first = [np.flatnonzero(labels == label)[: IMAGES_PER_CLASS[part]] for label in range(10)]
        rows = np.sort(np.concatenate(first)).astype(np.int32)
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = images[rows], labels[rows]
        arrays[f"{part}_rows"] = rows
    return arrays


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Creates the bundled subset of Fashion-MNIST.")
    parser.add_argument("folder", type=Path, help="folder of the four *-ubyte.gz files")
    arrays = subset(parser.parse_args().folder)
    TARGET.parent.mkdir(exist_ok=True)
    np.savez_compressed(TARGET, **arrays)
    digest = hashlib.sha256(TARGET.read_bytes()).hexdigest()
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes, sha256 {digest}")
