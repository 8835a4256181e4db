"""Makes the bundled subset of Fashion-MNIST from the original files.

    python launch/prepare/fashion_mnist.py /usr/share/datasets/fashion-mnist

The folder holds the four *-ubyte.gz files of Zalando's release (Debian: dataset-fashion-mnist). The
first images of every class are taken, 1,300 of the training and 250 of the test part, in the
original order, so the subset is the same wherever it is made.
"""

import argparse
import gzip
import hashlib
from pathlib import Path

import numpy as np

COUNTS = {"train": 1300, "eval": 250}
NAMES = {"train": "train", "eval": "t10k"}
TARGET = Path(__file__).parents[2] / "l2l_jax" / "datasets" / "bundled" / "fashion_mnist.npz"


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of bytes: two zeros, type 8, the number of axes, their sizes, the values."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an IDX file of bytes.")
    shape = np.frombuffer(data, ">i4", data[3], 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def subset(folder: Path) -> dict[str, np.ndarray]:
    """{part_images [N, 28, 28] uint8, part_labels [N] uint8, part_rows [N] int32}."""
    arrays = {}
    for part, name in NAMES.items():
        images = read_idx(folder / f"{name}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{name}-labels-idx1-ubyte.gz")
        first = [np.flatnonzero(labels == label)[: COUNTS[part]] for label in range(10)]
        rows = np.sort(np.concatenate(first)).astype(np.int32)
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = images[rows], labels[rows]
        arrays[f"{part}_rows"] = rows
    return arrays


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the four *-ubyte.gz files are")
    arrays = subset(parser.parse_args().folder)
    TARGET.parent.mkdir(exist_ok=True)
    np.savez_compressed(TARGET, **arrays)
    digest = hashlib.sha256(TARGET.read_bytes()).hexdigest()
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes, sha256 {digest}")
