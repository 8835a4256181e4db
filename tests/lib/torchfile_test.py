"""PyTorch files are read and written without PyTorch, and cannot do anything."""

import argparse
import os
import pickle
import zipfile

import numpy as np
import pytest

from l2l_jax.lib import torchfile
from tests.helpers import FIXTURES

FILES = FIXTURES / "torch"  # made with torch.save; hostile*.pth run `touch /tmp/pwned` if they can


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_both_formats(name):
    content = torchfile.read(FILES / f"{name}.pth")
    state = content["model"]
    np.testing.assert_array_equal(state["a"], np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(state["c"], np.arange(12).reshape(3, 4).T[1:])
    np.testing.assert_array_equal(state["shared"], [3, 4, 5])
    assert state["b"] == 2.5
    assert state["b"].shape == ()
    assert state["d"].dtype == np.int64
    assert state["h"].dtype.name == "bfloat16"
    assert isinstance(content["args"], argparse.Namespace)
    assert content["args"].norm_pix_loss is True
    assert content["epoch"] == 3


@pytest.mark.parametrize("name", ["hostile", "hostile_legacy"])
def test_a_hostile_file_is_refused_by_name_and_runs_nothing(name):
    with pytest.raises(torchfile.Refused, match=r"posix\.system"):
        torchfile.read(FILES / f"{name}.pth")
    assert not os.path.exists("/tmp/pwned")


@pytest.mark.parametrize(
    "target",
    [
        ("builtins", "eval"),
        ("os", "system"),
        ("numpy", "load"),
        ("torch", "load"),
        ("builtins", "getattr"),
    ],
)
def test_only_the_allow_list_passes(target, tmp_path):
    body = (
        pickle.PROTO + b"\x02" + pickle.GLOBAL + "{}\n{}\n".format(*target).encode() + pickle.STOP
    )
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", body)
    with pytest.raises(torchfile.Refused, match=f"asks for {target[0]}.{target[1]}"):
        torchfile.read(path)


def rewrite(path, change):
    """The zip fixture with one member changed."""
    with zipfile.ZipFile(FILES / "zip.pth") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, d: d[:-4] if n.endswith("data/0") else d, "another size than stated"),
        (lambda n, d: b"big" if n.endswith("byteorder") else d, "big-endian"),
        (lambda n, d: d[:40] if n.endswith("data.pkl") else d, "not a readable PyTorch file"),
    ],
)
def test_files_that_contradict_themselves(change, message, tmp_path):
    rewrite(tmp_path / "x.pth", change)
    with pytest.raises(torchfile.Refused, match=message):
        torchfile.read(tmp_path / "x.pth")


def test_a_tensor_cannot_reach_outside_its_storage():
    storage = torchfile._Storage(np.dtype(np.float32), 4, np.zeros(4, np.float32))
    for offset, shape, stride in [(0, (5,), (1,)), (1, (4,), (1,)), (0, (2, 2), (4, 1)),
                                  (-1, (1,), (1,)), (0, (2,), (-1,)), (0, (2,), ())]:  # fmt: skip
        with pytest.raises(torchfile.Refused):
            torchfile._Tensor(storage, offset, shape, stride).array()


def test_not_a_checkpoint(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(b"hello")
    with pytest.raises(torchfile.Refused, match="not a readable PyTorch file"):
        torchfile.read(path)
    with pytest.raises(FileNotFoundError):
        torchfile.read(tmp_path / "missing.pth")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(torchfile.Refused, match=r"torch\.save"):
        torchfile.read(path)


STATE = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "scalar": np.array(2, np.float32),
    "number": np.float32(3),
    "empty": np.zeros((0, 3), np.float32),
    "ids": np.array([1, 2], np.int64),
    "half": np.ones(3, np.float16),
}


def test_what_is_written_is_read_back(tmp_path):
    torchfile.write(tmp_path / "x.pth", {"model": STATE, "epoch": 3, "name": "x", "ok": True})
    back = torchfile.read(tmp_path / "x.pth")
    assert back["epoch"] == 3
    assert back["name"] == "x"
    for name, value in STATE.items():
        np.testing.assert_array_equal(back["model"][name], value)
        assert back["model"][name].dtype == value.dtype


def test_pytorch_reads_what_is_written(tmp_path):
    torch = pytest.importorskip("torch")
    torchfile.write(tmp_path / "x.pth", {"model": STATE})
    back = torch.load(tmp_path / "x.pth", map_location="cpu", weights_only=True)["model"]
    for name, value in STATE.items():
        np.testing.assert_array_equal(back[name].numpy(), value)
        assert tuple(back[name].shape) == value.shape
