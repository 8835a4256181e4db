"""Writes an ArrayRecord file, and the description of a set of such files, as TFDS does."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from l2l_jax.data import images
from l2l_jax.data.records import reader
from l2l_jax.lib import bounded, files
from l2l_jax.lib.errors import BrokenImage, NotSaved

RESUME = "What is done is kept: fix the cause, and run the same command again."
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
JPEG_QUALITY = 95
LEAST_SIDE = 32
Row = tuple[str, str, int]  # path of the image, its name, its label


@dataclasses.dataclass(frozen=True)
class Form:
    """What is stored of an image: its file, unchanged, or a smaller image that reads faster."""

    side: int = 0  # pixels of the shorter side, to which larger images are resized; 0: unchanged
    raw: bool = False  # the pixels themselves (as BMP), in place of a JPEG of JPEG_QUALITY

    @property
    def description(self) -> str:
        """In words, for logs and errors."""
        if not self.side:
            return "image files, unchanged"
        kind = "raw pixels" if self.raw else f"JPEG of quality {JPEG_QUALITY}"
        return f"images resized to {self.side} pixels on the shorter side, as {kind}"

    def encode(self, data: bytes, name: str) -> bytes:
        """What is stored of the image in the content of a file. BrokenImage if it is none."""
        if not self.side:
            return data
        image = images.shrink(images.decode(data, name), self.side)
        return images.encode(image, "BMP" if self.raw else "JPEG", JPEG_QUALITY)


UNCHANGED = Form()


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file and the images that are written to it."""

    path: Path
    rows: Sequence[Row]


def write(shard: Shard, fields: reader.Fields, form: Form = UNCHANGED) -> int:
    """Writes one file, atomically, and returns the number of its images.

    NotSaved if that fails, BrokenImage if a path is not that of an image.
    """
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # a C++ extension

    temporary = shard.path.with_name(f".{shard.path.name}{files.TEMPORARY}")
    try:
        writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
        for row in shard.rows:
            writer.write(_example(row, fields, form))
        writer.close()
        written = array_record_module.ArrayRecordReader(str(temporary)).num_records()
        if written != len(shard.rows):
            raise RuntimeError(f"{written} of {len(shard.rows)} images were written")
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, shard.path)
    except (RuntimeError, OSError) as error:
        raise NotSaved(f"{shard.path} could not be written: {error}. {RESUME}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return len(shard.rows)


def _example(row: Row, fields: reader.Fields, form: Form) -> bytes:
    """The record of an image."""
    from tensorflow_datasets.proto import tf_example_pb2

    path, name, label = row
    example = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]  # made at run time
    values = example.features.feature
    values[fields.image].bytes_list.value.append(form.encode(_image_bytes(path), path))
    values[fields.key].bytes_list.value.append(name.encode())
    if fields.label:
        values[fields.label].int64_list.value.append(label)
    return example.SerializeToString(deterministic=True)


def _image_bytes(path: str) -> bytes:
    """The content of an image file. BrokenImage if its header cannot be decoded."""
    try:
        data = bounded.read(path, images.MAX_FILE_BYTES)
        with images.open_checked(data):
            return data
    except Exception as error:  # decoders raise many types on damaged files
        raise BrokenImage(f"{path} is no image: {error}. Repair or remove it.") from error


def describe(
    folder: Path,
    dataset: str,
    classes: tuple[str, ...],
    fields: reader.Fields,
    shards: Mapping[str, Sequence[Shard]],
    form: Form = UNCHANGED,
) -> None:
    """Writes dataset_info.json and features.json of the shards {split: files}, in TFDS's format."""
    import tensorflow_datasets as tfds  # slow

    types = tfds.features
    features: dict[str, Any] = {
        fields.image: types.Image(encoding_format=None if form.raw else "jpeg")
    }
    features[fields.key] = types.Text()
    if fields.label:
        features[fields.label] = types.ClassLabel(names=classes)
    split_infos = []
    for name, of_split in shards.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder,  # pyright: ignore[reportArgumentType]  # any path
            dataset_name=dataset,
            split=name,
            filetype_suffix=reader.FORMAT,
            template=TEMPLATE,
        )
        lengths = [len(shard.rows) for shard in of_split]
        size = sum(shard.path.stat().st_size for shard in of_split)
        split_infos.append(
            tfds.core.SplitInfo(
                name=name, shard_lengths=lengths, num_bytes=size, filename_template=template
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=types.FeaturesDict(features),
        split_infos=split_infos,
        filename_template=TEMPLATE,
        version=folder.name,
        check_data=False,  # TFDS cannot check this format
    )
