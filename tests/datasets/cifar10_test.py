"""CIFAR-10 as TFDS stores it: a tiny set in the same format, written with the real builder."""

import json
import subprocess
import sys

import numpy as np
import pytest

from l2l_jax.datasets import cifar10
from l2l_jax.lib.errors import DataMissing
from tests.datasets.miniature import WITHOUT_TENSORFLOW
from tests.helpers import ROOT

COUNTS = {"train": 23, "test": 5}
READ = """
from l2l_jax.datasets import cifar10
assert cifar10.load("train", root=sys.argv[1]).read(0).shape == (32, 32, 3)
"""


def write(root, file_format="array_record"):
    """Writes noise as PNG, which needs TensorFlow; returns {key: (image, label)}."""
    pytest.importorskip("tensorflow", reason="the extra [tensorboard] has it")
    import tensorflow_datasets as tfds

    builder = tfds.builder("cifar10", data_dir=root, file_format=file_format)
    builder.info.features["label"].names = list(cifar10.CLASSES)
    (root / "cifar10" / "3.0.2").mkdir(parents=True)
    writer = tfds.core.SequentialWriter(
        builder.info, max_examples_per_shard=10, overwrite=True, file_format=file_format
    )
    writer.initialize_splits(list(COUNTS))
    rng, written = np.random.default_rng(0), {}
    for split, count in COUNTS.items():
        for row in rng.permutation(count):  # as TFDS does
            image, label = rng.integers(0, 256, (32, 32, 3), np.uint8), int(rng.integers(10))
            key = f"{split}_{row:05d}"
            writer.add_examples({split: [dict(id=key, image=image, label=label)]})
            written[key] = image, label
    writer.close_all()
    return written


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    return root, write(root)


@pytest.mark.slow
@pytest.mark.parametrize(("part", "split"), [("train", "train"), ("eval", "test")])
def test_images_labels_and_keys_are_read_as_written(tiny, part, split):
    root, written = tiny
    source = cifar10.load(part, root=str(root))
    assert source.keys == tuple(f"{split}_{row:05d}" for row in range(COUNTS[split]))
    assert source.labels.dtype == np.int32
    assert source.labels.tolist() == [written[key][1] for key in source.keys]
    for at, key in enumerate(source.keys):
        image = source.read(at)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, written[key][0], err_msg=key)


@pytest.mark.slow
def test_the_folder_may_come_from_the_environment(tiny, monkeypatch):
    monkeypatch.setenv("L2L_DATA", str(tiny[0]))
    assert len(cifar10.load("train").keys) == COUNTS["train"]


@pytest.mark.slow
def test_reading_needs_no_tensorflow(tiny):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW + READ, tiny[0]],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_error_for_missing_data_explains_how_to_get_it(tmp_path):
    with pytest.raises(DataMissing) as error:
        cifar10.load("train", root=str(tmp_path / "none"))
    text = str(error.value)
    assert (
        f"CIFAR-10 is not in {tmp_path / 'none'}: there is no {tmp_path / 'none'}/cifar10" in text
    )
    assert "https://www.cs.toronto.edu/~kriz/cifar.html" in text
    assert f"python launch/prepare/cifar10.py {tmp_path / 'none'}" in text
    assert (
        f"data_dir='{tmp_path / 'none'}', file_format='array_record').download_and_prepare()"
        in text
    )
    assert "tensorflow and importlib_resources" in text
    assert "--config configs/autoencoder_cifar10.py:bundled" in text


def test_the_command_in_the_message_runs(tmp_path):
    command = next(line for line in cifar10.HELP.splitlines() if "python -c" in line)
    code = command.format(root=tmp_path).split('"')[1].replace(".download_and_prepare()", "")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_set_in_the_usual_format_of_tfds_is_not_read(tmp_path):
    write(tmp_path, "tfrecord")
    with pytest.raises(DataMissing, match=r"in the format tfrecord.*\nremove .*3\.0\.2 first"):
        cifar10.load("train", root=str(tmp_path))


def test_a_missing_split_is_named(tiny, tmp_path):
    root, version = tmp_path, tmp_path / "cifar10" / "3.0.2"
    version.mkdir(parents=True)
    for path in (tiny[0] / "cifar10" / "3.0.2").iterdir():
        if "test" not in path.name:
            (version / path.name).write_bytes(path.read_bytes())
    about = json.loads((version / "dataset_info.json").read_text())
    about["splits"] = [split for split in about["splits"] if split["name"] != "test"]
    (version / "dataset_info.json").write_text(json.dumps(about))
    assert len(cifar10.load("train", root=str(root)).keys) == COUNTS["train"]
    with pytest.raises(DataMissing, match="its test split is missing"):
        cifar10.load("eval", root=str(root))


def prepare(folder):
    return subprocess.run(
        [sys.executable, "launch/prepare/cifar10.py", str(folder)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_preparing_checks_the_counts_of_what_is_there(tiny):
    done = prepare(tiny[0])
    assert done.returncode == 1
    assert "{'train': 23, 'test': 5}, not {'train': 50000, 'test': 10000}" in done.stderr.replace(
        "{'test': 5, 'train': 23}", "{'train': 23, 'test': 5}"
    )
