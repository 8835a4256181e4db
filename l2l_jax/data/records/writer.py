"""One ArrayRecord file, and the description of a set of them, as TFDS writes them."""

import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from l2l_jax.data.records import reader
from l2l_jax.lib.errors import BrokenImage, NotSaved

AGAIN = "What is done is kept: see to it, and run the same command again."
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
Row = tuple[str, str, int]  # path of the image, its name, its label


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file and what goes into it."""

    path: Path
    rows: Sequence[Row]


def write(shard: Shard, fields: reader.Fields) -> int:
    """Writes one file and returns the number of its images. NotSaved, BrokenImage."""
    from array_record.python import array_record_module

    temporary = shard.path.with_name(f".{shard.path.name}.tmp")
    try:
        writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
        for row in shard.rows:
            writer.write(_example(row, fields))
        writer.close()
        held = array_record_module.ArrayRecordReader(str(temporary)).num_records()
        if held != len(shard.rows):
            raise RuntimeError(f"{held} of {len(shard.rows)} images arrived")
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, shard.path)
    except (RuntimeError, OSError) as error:
        raise NotSaved(f"{shard.path} could not be written: {error}. {AGAIN}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return len(shard.rows)


def _example(row: Row, fields: reader.Fields) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    path, name, label = row
    example = tf_example_pb2.Example()
    values = example.features.feature
    values[fields.image].bytes_list.value.append(_checked(path))
    values[fields.key].bytes_list.value.append(name.encode())
    if fields.label:
        values[fields.label].int64_list.value.append(label)
    return example.SerializeToString(deterministic=True)


def _checked(path: str) -> bytes:
    """The bytes of an image file; only its head is decoded."""
    try:
        data = Path(path).read_bytes()
        with Image.open(io.BytesIO(data)):
            return data
    except Exception as error:  # decoders raise a zoo of types on damaged files
        raise BrokenImage(f"{path} is no image: {error}. Mend or remove it.") from error


def describe(
    folder: Path,
    dataset: str,
    classes: tuple[str, ...],
    fields: reader.Fields,
    shards: Mapping[str, Sequence[Shard]],
) -> None:
    """dataset_info.json and features.json, as TFDS wants them."""
    import tensorflow_datasets as tfds  # slow

    kinds = tfds.features
    features = {fields.image: kinds.Image(encoding_format="jpeg")}
    features[fields.key] = kinds.Text()
    if fields.label:
        features[fields.label] = kinds.ClassLabel(names=classes)
    about = []
    for name, some in shards.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder,
            dataset_name=dataset,
            split=name,
            filetype_suffix=reader.FORMAT,
            template=TEMPLATE,
        )
        lengths = [len(shard.rows) for shard in some]
        size = sum(shard.path.stat().st_size for shard in some)
        about.append(
            tfds.core.SplitInfo(
                name=name, shard_lengths=lengths, num_bytes=size, filename_template=template
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=kinds.FeaturesDict(features),
        split_infos=about,
        filename_template=TEMPLATE,
        version=folder.name,
        check_data=False,  # by a reader that cannot read this format
    )
