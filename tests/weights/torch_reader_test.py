"""PyTorch files are read and written without PyTorch, and cannot do anything."""

import argparse
import os
import pickle
import zipfile

import numpy as np
import pytest

from l2l_jax.weights import torch_pickle, torch_reader, torch_writer
from tests.helpers import FIXTURES

FILES = FIXTURES / "torch"  # made with torch.save; hostile*.pth run `touch /tmp/pwned` if they can


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_both_formats(name):
    content = torch_reader.read(FILES / f"{name}.pth")
    state = content["model"]
    np.testing.assert_array_equal(state["a"], np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(state["c"], np.arange(12).reshape(3, 4).T[1:])
    np.testing.assert_array_equal(state["shared"], [3, 4, 5])
    assert state["b"] == 2.5
    assert state["b"].shape == ()
    assert state["d"].dtype == np.int64
    assert state["h"].dtype.name == "bfloat16"
    assert vars(content["args"]) == dict(norm_pix_loss=True, model="x", device="cpu")
    assert content["epoch"] == 3


@pytest.mark.parametrize("name", ["hostile", "hostile_legacy"])
def test_a_hostile_file_is_refused_by_name_and_runs_nothing(name):
    with pytest.raises(torch_pickle.Refused, match=r"posix\.system"):
        torch_reader.read(FILES / f"{name}.pth")
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
    with pytest.raises(torch_pickle.Refused, match=f"asks for {target[0]}.{target[1]}"):
        torch_reader.read(archive(tmp_path / "x.pth", body))


def archive(path, body, **members):
    """A zip file as torch.save makes them, around any pickle."""
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("archive/data.pkl", body)
        for name, data in members.items():
            made.writestr(f"archive/data/{name}", data)
    return path


def literal(value):
    return pickle.dumps(value, protocol=2)[2:-1]


def storage(size):
    words = literal("storage") + pickle.GLOBAL + b"torch\nFloatStorage\n"
    words += literal("0") + literal("cpu") + literal(size)
    return pickle.MARK + words + pickle.TUPLE + pickle.BINPERSID


def framed(body):
    return pickle.PROTO + b"\x02" + body + pickle.STOP


ALTERED = {
    "a storage": storage(4) + literal({"size": 10**9}) + pickle.BUILD,
    "slots of a storage": storage(4) + literal((None, {"size": 10**9})) + pickle.BUILD,
    "a function": pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n"
    + literal((None, {"__defaults__": (1,)})) + pickle.BUILD,
    "the namespace": pickle.GLOBAL + b"argparse\nNamespace\n"
    + literal((None, {"hijacked": "yes"})) + pickle.BUILD,
    "the dict": pickle.GLOBAL + b"collections\nOrderedDict\n"
    + literal((None, {"hijacked": "yes"})) + pickle.BUILD,
}  # fmt: skip


@pytest.mark.parametrize("what", ALTERED)
def test_a_file_cannot_alter_what_a_name_stands_for(what, tmp_path):
    with pytest.raises(torch_pickle.Refused):
        torch_reader.read(archive(tmp_path / "x.pth", framed(ALTERED[what]), **{"0": b"\0" * 16}))
    assert not hasattr(argparse.Namespace(), "hijacked")
    torch_reader.read(FILES / "zip.pth")


def test_small_files_do_not_grow_large(tmp_path):
    tensor = pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n" + pickle.MARK + storage(4)
    tensor += literal(0) + literal((1 << 14, 1 << 14)) + literal((0, 0)) + literal(False)
    tensor += literal({}) + pickle.TUPLE + pickle.REDUCE
    with pytest.raises(torch_pickle.Refused, match="larger than its storage"):
        torch_reader.read(archive(tmp_path / "x.pth", framed(tensor), **{"0": b"\0" * 16}))
    doubled = literal([1])
    for _ in range(60):
        doubled = doubled + pickle.DUP + pickle.TUPLE2
    deep = torch_reader.read(archive(tmp_path / "y.pth", framed(doubled)))
    assert deep[0] is deep[1], "what is shared in the file is shared in memory"
    with zipfile.ZipFile(tmp_path / "z.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("archive/data.pkl", framed(literal({})))
    with pytest.raises(torch_pickle.Refused, match="packed"):
        torch_reader.read(tmp_path / "z.pth")


@pytest.mark.parametrize("cut", [1, 4, 24, 200])
def test_a_truncated_legacy_file_is_refused(cut, tmp_path):
    data = (FILES / "legacy.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(data[:-cut])
    with pytest.raises(torch_pickle.Refused):
        torch_reader.read(tmp_path / "x.pth")


def test_one_storage_cannot_be_two(tmp_path):
    body = pickle.MARK + storage(4) + storage(3) + pickle.TUPLE
    with pytest.raises(torch_pickle.Refused, match=r"data/0 has another|described in two ways"):
        torch_reader.read(archive(tmp_path / "x.pth", framed(body), **{"0": b"\0" * 16}))


def rewrite(path, change):
    """The zip fixture with one member changed."""
    with zipfile.ZipFile(FILES / "zip.pth") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, d: d[:-4] if n.endswith("data/0") else d, "has another size than stated"),
        (lambda n, d: b"big" if n.endswith("byteorder") else d, "big-endian"),
        (lambda n, d: d[:-1] if n.endswith("data.pkl") else d, "not a readable PyTorch file"),
    ],
)
def test_files_that_contradict_themselves(change, message, tmp_path):
    rewrite(tmp_path / "x.pth", change)
    with pytest.raises(torch_pickle.Refused, match=message):
        torch_reader.read(tmp_path / "x.pth")


def test_a_tensor_cannot_reach_outside_its_storage():
    found = torch_pickle.Storage(np.dtype(np.float32), 4, b"\0" * 16)
    for offset, shape, stride in [(0, (5,), (1,)), (1, (4,), (1,)), (0, (2, 2), (4, 1)),
                                  (-1, (1,), (1,)), (0, (2,), (-1,)), (0, (2,), ()),
                                  (0, (2,), (10**18,)), (10**18, (1,), (1,))]:  # fmt: skip
        with pytest.raises(torch_pickle.Refused):
            torch_pickle.Tensor(found, offset, shape, stride).array()


def test_not_a_checkpoint(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(b"hello")
    with pytest.raises(torch_pickle.Refused, match="not a readable PyTorch file"):
        torch_reader.read(path)
    with pytest.raises(FileNotFoundError):
        torch_reader.read(tmp_path / "missing.pth")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(torch_pickle.Refused, match=r"torch\.save"):
        torch_reader.read(path)


STATE = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "scalar": np.array(2, np.float32),
    "number": np.float32(3),
    "empty": np.zeros((0, 3), np.float32),
    "ids": np.array([1, 2], np.int64),
    "half": np.ones(3, np.float16),
}


def test_what_is_written_is_read_back(tmp_path):
    torch_writer.write(tmp_path / "x.pth", {"model": STATE, "epoch": 3, "name": "x", "ok": True})
    back = torch_reader.read(tmp_path / "x.pth")
    assert back["epoch"] == 3
    assert back["name"] == "x"
    for name, value in STATE.items():
        np.testing.assert_array_equal(back["model"][name], value)
        assert back["model"][name].dtype == value.dtype


def test_pytorch_reads_what_is_written(tmp_path):
    torch = pytest.importorskip("torch")
    torch_writer.write(tmp_path / "x.pth", {"model": STATE})
    back = torch.load(tmp_path / "x.pth", map_location="cpu", weights_only=True)["model"]
    for name, value in STATE.items():
        np.testing.assert_array_equal(back[name].numpy(), value)
        assert tuple(back[name].shape) == value.shape


def doubled(depth):
    """A tuple that holds itself twice, to a depth: its hash and its text take 2^depth steps."""
    return literal("x") + (pickle.DUP + pickle.TUPLE2) * depth


HANGING = {
    "a key": pickle.EMPTY_DICT + doubled(60) + literal(1) + pickle.SETITEM,
    "keys": pickle.EMPTY_DICT + pickle.MARK + doubled(60) + literal(1) + pickle.SETITEMS,
    "a dict": pickle.MARK + doubled(60) + literal(1) + pickle.DICT,
    "a set": pickle.EMPTY_SET + pickle.MARK + doubled(60) + pickle.ADDITEMS,
    "pairs": pickle.GLOBAL + b"collections\nOrderedDict\n" + pickle.MARK + pickle.EMPTY_LIST
    + doubled(60) + literal(1) + pickle.TUPLE2 + pickle.APPEND + pickle.TUPLE + pickle.REDUCE,
    "a device": pickle.GLOBAL + b"torch\ndevice\n" + pickle.MARK + doubled(60) + pickle.TUPLE
    + pickle.REDUCE,
    "a storage": doubled(60) + pickle.BINPERSID,
}  # fmt: skip


@pytest.mark.parametrize("what", HANGING)
def test_what_would_take_for_ever_is_refused(what, tmp_path):
    with pytest.raises(torch_pickle.Refused):
        torch_reader.read(archive(tmp_path / "x.pth", framed(HANGING[what])))


def test_an_index_of_the_memo_costs_no_memory(tmp_path):
    """The unpickler in C would reserve 16 bytes for each of 2^31 places."""
    put = pickle.LONG_BINPUT + (2**31 - 1).to_bytes(4, "little")
    assert torch_reader.read(archive(tmp_path / "x.pth", framed(literal(1) + put))) == 1


def test_many_tensors_over_one_storage_do_not_become_many_copies(tmp_path):
    part = pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n" + pickle.MARK + storage(1 << 18)
    part += literal(0) + literal((1 << 18,)) + literal((1,)) + literal(False) + literal({})
    part += pickle.TUPLE + pickle.REDUCE + pickle.APPEND
    data = {"0": bytes(1 << 20)}
    read = torch_reader.read(archive(tmp_path / "x.pth", framed(b"]" + part * 3), **data))
    assert [array.nbytes for array in read] == [1 << 20] * 3
    with pytest.raises(torch_pickle.Refused, match=r"need more than .* bytes"):
        torch_reader.read(archive(tmp_path / "y.pth", framed(b"]" + part * 9), **data))


def test_parts_of_an_archive_do_not_overlap(tmp_path):
    path = archive(tmp_path / "x.pth", framed(literal({})), **{"0": bytes(5000), "1": b"x"})
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"archive/data/1") - 46
    data[entry + 20 : entry + 28] = (9000).to_bytes(4, "little") * 2  # its size, in the directory
    path.write_bytes(data)
    with pytest.raises(torch_pickle.Refused, match="overlap"):
        torch_reader.read(path)


def test_weights_are_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "x.pth")
    with pytest.raises(torch_pickle.Refused, match="is a named pipe, not a regular file"):
        torch_reader.read(tmp_path / "x.pth")
