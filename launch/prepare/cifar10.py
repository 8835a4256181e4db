"""Downloads CIFAR-10 and prepares it for l2l_jax/datasets/cifar10.py.

    python launch/prepare/cifar10.py ~/data
    export L2L_DATA=~/data

The folder then holds cifar10/3.0.2/*.array_record-*, about 130 MB; 170 MB are downloaded from
https://www.cs.toronto.edu/~kriz/cifar.html, unless --downloads is a folder with what
tensorflow-datasets has downloaded before. Needs the packages tensorflow, to encode the images, and
importlib_resources; both are installed with l2l_jax, and reading needs neither. A set that is
already there is only checked.
"""

import argparse
import os
import sys
from pathlib import Path

COUNTS = {"train": 50_000, "test": 10_000}
FORMAT = "array_record"


def preflight(folder: Path, downloads: Path | None = None) -> dict[str, int]:
    """{split: images} of the set in `folder`, which is made if it is not there.

    SystemExit with the reason if a package is missing, the download fails, or the set has another
    format or size.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import importlib_resources  # noqa: F401  TFDS imports it late, and in vain
        import tensorflow  # noqa: F401
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise SystemExit(
            f"Preparing needs the package {error.name}: pip install {error.name}"
        ) from error
    builder = tfds.builder("cifar10", data_dir=folder)
    if builder.info.splits and builder.info.file_format.value != FORMAT:
        raise SystemExit(
            f"{builder.data_path} holds the format {builder.info.file_format.value}, not {FORMAT}; "
            "remove it, and run this again."
        )
    if not builder.info.splits:
        builder = tfds.builder("cifar10", data_dir=folder, file_format=FORMAT)
        try:
            builder.download_and_prepare(download_dir=downloads)
        except Exception as error:  # of the network, of the disk, of TFDS: all end here
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
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("folder", type=Path, help="where cifar10/ will lie: the L2L_DATA of a run")
    parser.add_argument("--downloads", type=Path, help="folder of downloads, kept (default: there)")
    given = parser.parse_args()
    found = preflight(given.folder.expanduser(), given.downloads)
    print(f"{given.folder}: {', '.join(f'{n:,} {name}' for name, n in found.items())} images")
    sys.exit(0)
