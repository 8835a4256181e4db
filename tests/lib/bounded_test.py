"""Files of other kinds and sizes than expected are refused in one line, in no time."""

import os
import socket
import zipfile

import numpy as np
import pytest

from l2l_jax.lib import bounded, files, text
from l2l_jax.lib.errors import Damaged


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "a named pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (os.mkdir, "a folder"),
    ],
)
def test_only_regular_files_are_read(tmp_path, make, kind):
    make(tmp_path / "x")
    with pytest.raises(bounded.Unreadable, match=rf"x is {kind}, not a regular file"):
        bounded.read(tmp_path / "x", 100)


def test_a_socket_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("x")
        with pytest.raises(bounded.Unreadable, match="x is a socket"):
            bounded.read("x", 100)


def test_a_file_is_read_up_to_its_limit(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert bounded.read(tmp_path / "x", 3) == b"abc"
    with pytest.raises(bounded.Unreadable, match="x has 3 bytes; at most 2 are read"):
        bounded.read(tmp_path / "x", 2)
    with pytest.raises(FileNotFoundError):
        bounded.read(tmp_path / "y", 2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "no readable JSON"),
        (b"\xff\xfe\x00", "no readable JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b"9" * 5000, "no readable JSON"),
    ],
)
def test_json_that_is_none(tmp_path, content, reason):
    with pytest.raises(bounded.Unreadable, match=rf"x\.json is .*{reason}") as error:
        bounded.parse_json(content, "x.json")
    assert "\n" not in str(error.value)
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(Damaged, match=r"x\.json is cut off or damaged"):
        files.read_json(tmp_path / "x.json")


def test_a_named_pipe_is_no_json_file(tmp_path):
    os.mkfifo(tmp_path / "x.json")
    for read in (files.read_json, lambda path: list(files.read_jsonl(path))):
        with pytest.raises(Damaged, match="is a named pipe, not a regular file"):
            read(tmp_path / "x.json")


def test_arrays_are_read_back(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", a=np.arange(3), b=np.array("text"))
    arrays = bounded.read_npz(tmp_path / "x.npz")
    assert arrays["a"].tolist() == [0, 1, 2]
    assert str(arrays["b"]) == "text"
    with pytest.raises(bounded.Unreadable, match=r"would unpack to .* at most 10 are read"):
        bounded.read_npz(tmp_path / "x.npz", 10)


def test_an_array_is_not_larger_than_its_bytes(tmp_path):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,), }\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"x"
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", data)
    with pytest.raises(bounded.Unreadable, match="the array a states the shape"):
        bounded.read_npz(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", a=np.array([None]))
    with pytest.raises(bounded.Unreadable, match="the array a holds Python objects"):
        bounded.read_npz(tmp_path / "y.npz")
    (tmp_path / "z.npz").write_bytes(b"PK")
    with pytest.raises(bounded.Unreadable, match=r"z\.npz is no readable \.npz file"):
        bounded.read_npz(tmp_path / "z.npz")


def test_what_a_terminal_would_obey_is_not_printed():
    assert text.printable("a\x1b[2J\r\ud800\u202eb\n\tc") == "a\ufffd[2J\ufffd\ufffd\ufffdb\n\tc"
    assert text.one_line(" a\n\tb\x00 ") == "a b\ufffd"
