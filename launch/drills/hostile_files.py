"""The hostile files of launch/drills/files.py: {what is tried: a function that makes the file}."""

import io
import json
import os
import pickle
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

MARK = "/tmp/l2l_drill_executed"  # made by files that get code to run

Make = Callable[[Path], None]


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A greyscale PNG file of this size; its pixels are zeros, or `data`, compressed."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(data or bytes((width + 1) * min(height, 20_000)), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def as_fifo(path: Path) -> None:
    os.mkfifo(path)


def as_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(path.parent)
        made.bind(path.name)


def link_to(target: str) -> Make:
    return lambda path: path.symlink_to(target)


def content(data: bytes) -> Make:
    """A file with these bytes."""

    def make(path: Path) -> None:
        path.write_bytes(data)

    return make


def sparse(size: int, start: bytes = b"") -> Make:
    """A file of this size that takes no room on the disk."""

    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.write(start)
            file.truncate(size)

    return make


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print\n"
IMAGES: dict[str, Make] = {
    "image: a named pipe": as_fifo,
    "image: a socket": as_socket,
    "image: a link to /dev/zero": link_to("/dev/zero"),
    "image: a folder": lambda path: path.mkdir(),
    "image: a link to itself": lambda path: path.symlink_to(path.name),
    "image: 13,000 x 13,000 pixels": content(png(13_000, 13_000)),
    "image: 60,000 x 60,000 pixels by its header": content(png(60_000, 60_000, b"\0")),
    "image: 2 GB of zeros": sparse(2 << 30),
    "image: PNG header, then 2 GB": sparse(2 << 30, png(8, 8)[:30]),
    "image: EPS, a program": content(EPS),
    "image: empty": content(b""),
    "image: text": content(b"<svg onload=alert(1)>"),
    "image: cut off": content(png(64, 64, os.urandom(65 * 64))[:600]),
}


def framed(body: bytes) -> bytes:
    return pickle.PROTO + b"\x02" + body + pickle.STOP


def archive(body: bytes, **members: bytes) -> Make:
    """A zip file as torch.save makes them, around any pickle."""

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as made:
            made.writestr("archive/data.pkl", body)
            for name, data in members.items():
                made.writestr(f"archive/data/{name}", data)

    return make


def literal(value: object) -> bytes:
    return pickle.dumps(value, protocol=2)[2:-1]


def tensor(size: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    words = literal("storage") + pickle.GLOBAL + b"torch\nFloatStorage\n"
    words += literal("0") + literal("cpu") + literal(size)
    storage = pickle.MARK + words + pickle.TUPLE + pickle.BINPERSID
    made = pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n" + pickle.MARK + storage
    made += literal(0) + literal(shape) + literal(stride) + literal(False) + literal({})
    return made + pickle.TUPLE + pickle.REDUCE


def doubled(depth: int) -> bytes:
    """A tuple that holds itself twice, to this depth: its text and its hash take 2^depth steps."""
    body = literal("x")
    for _ in range(depth):
        body += pickle.DUP + pickle.TUPLE2
    return body


def overlapping(path: Path) -> None:
    """An archive of 4 MB whose 2,000 parts are the same 4 MB."""
    archive(framed(literal({})), **{"0": bytes(4 << 20)})(path)
    with zipfile.ZipFile(path) as made:
        info = next(i for i in made.infolist() if i.filename.endswith("/0"))
        start = made.start_dir
    whole = path.read_bytes()
    names = [f"archive/data/{n:07d}".encode() for n in range(2000)]
    entry = struct.pack("<IHHHHHHIII", 0x02014B50, 20, 20, 0, 0, 0, 0, info.CRC, 4 << 20, 4 << 20)
    entries = b"".join(
        entry + struct.pack("<HHHHHII", len(n), 0, 0, 0, 0, 0, info.header_offset) + n
        for n in names
    )
    old = whole[start : whole.index(b"PK\x05\x06")]
    count = len(names) + 2
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(old + entries), start, 0)
    path.write_bytes(whole[:start] + old + entries + end)


STORAGE = bytes(1 << 22)
MANY = b"".join(tensor(1 << 20, (1 << 20,), (1,)) + pickle.APPEND for _ in range(2000))
RUNS = f"cposix\nsystem\n(S'touch {MARK}'\ntR.".encode()
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
SYSTEM = pickle.dumps({"little_endian": True}, 2)
TORCH: dict[str, Make] = {
    "pickle: runs a command": archive(b"\x80\x02" + RUNS),
    "pickle: runs a command, old format": content(b"\x80\x02" + RUNS),
    "pickle: memo index 2^28": archive(framed(literal({}) + b"r" + struct.pack("<I", 1 << 28))),
    "pickle: memo index 2^31, old format": content(
        framed(literal(1) + b"r" + struct.pack("<I", (1 << 31) - 1))
    ),
    "pickle: a text of 2^40 bytes": archive(framed(b"\x8e" + struct.pack("<Q", 1 << 40))),
    "pickle: a key that is doubled 60 times": archive(
        framed(pickle.EMPTY_DICT + doubled(60) + literal(1) + pickle.SETITEM)
    ),
    "pickle: a set of a tuple doubled 60 times": archive(
        b"\x80\x04\x8f(" + doubled(60) + b"\x90."
    ),
    "pickle: a storage named by a doubled tuple": archive(
        framed(pickle.MARK + doubled(40) + pickle.TUPLE + pickle.BINPERSID)
    ),
    "pickle: a device named by a doubled tuple": archive(
        framed(b"ctorch\ndevice\n(" + doubled(60) + b"tR")
    ),
    "pickle: 2,000 tensors over one storage": archive(
        framed(pickle.EMPTY_LIST + MANY), **{"0": STORAGE}
    ),
    "pickle: a tensor larger than its storage": archive(
        framed(tensor(4, (1 << 17, 1 << 17), (0, 0))), **{"0": bytes(16)}
    ),
    "pickle: nested 100,000 deep": archive(framed(b"]" * 100_000 + b"a" * 99_999)),
    "pickle: parts that overlap": overlapping,
    "pickle: a state dict of texts": archive(framed(literal({"model": {"pos_embed": "x"}}))),
    "pickle: arrays of other shapes": archive(
        framed(pickle.EMPTY_DICT + literal("patch_embed.proj.weight") + tensor(4, (4,), (1,))
               + pickle.SETITEM + literal("pos_embed") + tensor(4, (4,), (1,)) + pickle.SETITEM),
        **{"0": bytes(16)},
    ),
    "pickle: old format, a storage of 2^60": content(
        LEGACY + SYSTEM + framed(tensor(1 << 60, (4,), (1,)))
        + pickle.dumps(["0"], 2) + struct.pack("<Q", 1 << 60) + bytes(16)
    ),
    "pickle: a named pipe": as_fifo,
    "pickle: a link to /dev/zero": link_to("/dev/zero"),
    "pickle: 8 GB of zeros": sparse(8 << 30),
    "pickle: a web page": content(b"<!doctype html><title>Sign in</title>"),
}  # fmt: skip


def safetensors(header: object, data: bytes = b"", size: int | None = None) -> Make:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return content(struct.pack("<Q", len(text) if size is None else size) + text + data)


def about(value: object) -> dict[str, dict[str, object]]:
    return {"__metadata__": {"about": value if isinstance(value, str) else json.dumps(value)}}


def one(kind: str, ends: tuple[int, int], shape: tuple[int, ...]) -> dict[str, object]:
    return {"x": {"dtype": kind, "shape": shape, "data_offsets": ends}}


EMPTY_DIGEST = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
OURS = {"digest": EMPTY_DIGEST, "model": "mae"}
SAFETENSORS: dict[str, Make] = {
    "safetensors: a header of 2^62 bytes": safetensors({}, size=1 << 62),
    "safetensors: a header of 90 MB": safetensors(b" " * (90 << 20)),
    "safetensors: an array beyond the end": safetensors(one("F32", (0, 1 << 40), (1 << 38,))),
    "safetensors: another shape than its bytes": safetensors(
        one("F32", (0, 4), (1 << 30,)), bytes(4)
    ),
    "safetensors: offsets that overlap": safetensors(
        one("F32", (0, 4), (1,)) | {"y": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        bytes(4),
    ),
    "safetensors: metadata nested deeply": safetensors(about("[" * 200_000)),
    "safetensors: metadata that are a number": safetensors(about(3)),
    "safetensors: metadata that are no JSON": safetensors(about("{")),
    "safetensors: args that are a text": safetensors(about({**OURS, "args": "x"})),
    "safetensors: args of other types": safetensors(
        about({**OURS, "args": {"size": [1], "width": "x"}})
    ),
    "safetensors: args of an immense model": safetensors(
        about({**OURS, "args": {"image_size": 1 << 40, "width": 1 << 40}})
    ),
    "safetensors: names that contradict": safetensors(
        {**about({**OURS, "args": {}}), "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
         "a/b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)
    ),
    "safetensors: numbers of 8 bits": safetensors(
        {**about({**OURS, "args": {}}), **one("F8_E4M3", (0, 4), (4,))}, bytes(4)
    ),
    "safetensors: a named pipe": as_fifo,
}  # fmt: skip


def npz(members: dict[str, bytes], packed: bool = True) -> Make:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else 0) as made:
            for name, data in members.items():
                made.writestr(name, data)

    return make


def npy(shape: str, data: bytes = b"", kind: str = "'|u1'") -> bytes:
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}"
    head = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def zip_bomb(path: Path) -> None:
    """10 MB that unpack to 10 GB."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made,
        made.open("folders.npy", "w", force_zip64=True) as file,
    ):
        file.write(npy(f"({(10 << 30) - 128},)"))
        for _ in range(640):
            file.write(bytes(16 << 20))


def pickled_array() -> bytes:
    made = io.BytesIO()
    np.save(made, np.array([None, 1], object), allow_pickle=True)
    return made.getvalue()


ARRAYS: dict[str, Make] = {
    "npz: 10 MB that unpack to 10 GB": zip_bomb,
    "npz: a shape of 2^40": npz({"folders.npy": npy("(1099511627776,)", b"x")}),
    "npz: Python objects": npz({"folders.npy": pickled_array()}),
    "npz: no array": npz({"folders.npy": b"x"}),
    "npz: other names": npz({"x.npy": npy("(1,)", b"x")}),
    "npz: a named pipe": as_fifo,
    "npz: cut off": content(b"PK\x03\x04 and no more"),
}
TEXTS: dict[str, Make] = {
    "list: 2 GB of zeros": sparse(2 << 30),
    "list: UTF-16, cut off": content("cats/1.png\n".encode("utf-16")[:-1]),
    "list: a link to /dev/zero": link_to("/dev/zero"),
    "list: a named pipe": as_fifo,
    "list: a million other keys": content(b"x/y.png\n" * 1_000_000),
}
JSONS: dict[str, Make] = {
    "json: nested 1,000,000 deep": content(b"[" * 1_000_000),
    "json: 3 GB of zeros": sparse(3 << 30),
    "json: a number of 5,000 digits": content(b"9" * 5000),
    "json: a list where a split should be": content(b"[1, 2]"),
    "json: keys that are numbers": content(b'{"keys": [1, 2]}'),
}
RECORDS: dict[str, Make] = {
    "record: empty": content(b""),
    "record: zeros": content(bytes(1 << 17)),
    "record: noise": content(np.random.default_rng(0).bytes(1 << 17)),
    "record: a named pipe": as_fifo,
}
