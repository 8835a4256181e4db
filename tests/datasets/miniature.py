"""Small data sets in the formats of large ones, and checks that apply to each of them."""

import io

import numpy as np
from PIL import Image

from l2l_jax.data import images, loader

RED = (254, 0, 0)
WITHOUT_TENSORFLOW = """
import sys

class Without:  # module finders that do not find TensorFlow
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] != "tensorflow":
            return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
"""


def put(path, picture=RED, size=(24, 20), **options):
    """Writes a JPEG file of one colour, or of an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, picture) if isinstance(picture, tuple) else picture
    image.save(path, "JPEG", quality=95, **options)


def sequential(builder, splits):
    """Writes {split: examples} as TFDS does, with the features of this builder."""
    import tensorflow_datasets as tfds

    builder.data_path.mkdir(parents=True)
    writer = tfds.core.SequentialWriter(
        builder.info, max_examples_per_shard=7, overwrite=True, file_format="array_record"
    )
    writer.initialize_splits(list(splits))
    for split, examples in splits.items():
        writer.add_examples({split: examples})
    writer.close_all()


def assert_same(one, other):
    """Two sources have equal keys, classes, labels and pixels."""
    assert one.keys == other.keys
    assert one.classes == other.classes
    assert one.titles == other.titles
    assert one.labels.dtype == other.labels.dtype == np.int32
    np.testing.assert_array_equal(one.labels, other.labels)
    for at, key in enumerate(one.keys):
        np.testing.assert_array_equal(one.read(at), other.read(at), err_msg=key)


def assert_red(image):
    """The image is red: BGR, inverted CMYK or YCbCr were not mistaken for RGB."""
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    mean = image.reshape(-1, 3).mean(0)
    assert mean[0] > 240, mean
    assert mean[1] < 15, mean
    assert mean[2] < 15, mean


def assert_same_batches_on_any_hosts(source, batch=8):
    """1, 2 and 4 simulated hosts read equal global batches, for more than an epoch."""
    augment = images.augmentation(16, (0.5, 1.0), True)
    subset = loader.Subset(source, range(len(source.keys)))
    steps = len(source.keys) // batch + 2

    def whole(count):
        hosts = [loader.Host(i, count, threads=2) for i in range(count)]
        streams = [loader.train_batches(subset, augment, batch, 3, 0, host) for host in hosts]
        found = [np.concatenate([next(s) for s in streams]) for _ in range(steps)]
        for stream in streams:
            stream.close()
        return np.stack(found)

    one = whole(1)
    assert len({row.tobytes() for row in one[0]}) == batch
    for count in (2, 4):
        np.testing.assert_array_equal(one, whole(count), err_msg=f"{count} hosts")


def modes(folder):
    """{(mode, EXIF orientation)} of the JPEG files below a folder."""
    modes = set()
    for path in folder.rglob("*.*"):
        if path.suffix.lower() in images.SUFFIXES:
            with Image.open(io.BytesIO(path.read_bytes())) as image:
                assert image.format == "JPEG"
                modes.add((image.mode, image.getexif().get(0x0112, 1)))
    return modes
