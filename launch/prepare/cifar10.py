"""Downloads CIFAR-10 and prepares it for l2l_jax/datasets/cifar10.py.

    python launch/prepare/cifar10.py ~/data
    export L2L_DATA=~/data

The folder then holds cifar10/3.0.2/*.array_record-*, about 130 MB. 170 MB are downloaded from
https://www.cs.toronto.edu/~kriz/cifar.html, unless --downloads is a folder with earlier downloads
of tensorflow-datasets. Needs the packages tensorflow, to encode the images, and
importlib_resources: pip install 'l2l_jax[tensorboard]'. Reading does not need TensorFlow. If the
folder holds the data set already, it is only checked.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

COUNTS = {"train": 50_000, "test": 10_000}
FORMAT = "array_record"


def prepare(folder: Path, downloads: Path | None = None) -> dict[str, int]:
    """Prepares the set in `folder` if it is not there; returns {split: number of images}.

    downloads: folder of the downloads, default: inside of `folder`. SystemExit, with the reason, if
    a package is missing, the download fails, or the set has another format or size.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import importlib_resources  # noqa: F401  TFDS needs it and does not require it
        import tensorflow  # noqa: F401
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise SystemExit(
            f"Preparing needs the package {error.name}: pip install {error.name}"
        ) from error
    builder: Any = tfds.builder("cifar10", data_dir=folder)
    if builder.info.splits and builder.info.file_format.value != FORMAT:
        raise SystemExit(
            f"{builder.data_path} holds the format {builder.info.file_format.value}, not {FORMAT}; "
            "remove it, and run this again."
        )
    if not builder.info.splits:
        builder = tfds.builder("cifar10", data_dir=folder, file_format=FORMAT)
        try:
            builder.download_and_prepare(download_dir=downloads)
        except Exception as error:  # of the network, the disk or TFDS
            raise SystemExit(
                f"CIFAR-10 was not prepared: {type(error).__name__}: {error}"
            ) from error
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    if counts != COUNTS:
        raise SystemExit(
            f"{builder.data_path} holds {counts}, not {COUNTS}; remove it, and run this again."
        )
    return counts


if __name__ == "__main__":
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument(
        "folder", type=Path, help="folder that will hold cifar10/: the L2L_DATA of a run"
    )
    parser.add_argument(
        "--downloads", type=Path, help="folder of downloads (default: in the folder)"
    )
    args = parser.parse_args()
    counts = prepare(args.folder.expanduser(), args.downloads)
    print(f"{args.folder}: {', '.join(f'{n:,} {name}' for name, n in counts.items())} images")
    sys.exit(0)
