"""Lists of image keys: encodings, what is no list, and what a wrong key may mean."""

import json

import pytest

from l2l_jax.data import key_lists
from l2l_jax.lib.errors import ConfigError, DataMissing

KEYS = ["cats/1.png", "dogs/ä b.png"]
KNOWN = ("cats/001.jpg", "cats/002.jpg", "dogs/Rex.JPG", "dogs/old/003.png")


def write(folder, data, name="list.txt"):
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize(
    "data",
    [
        "cats/1.png\ndogs/ä b.png\n".encode(),
        "cats/1.png\r\ndogs/ä b.png".encode(),
        "cats/1.png\rdogs/ä b.png\r".encode(),
        "\n\n  cats/1.png \t\n\n\tdogs/ä b.png\n \n".encode(),
        "cats/1.png\ndogs/ä b.png".encode("utf-8-sig"),
        "cats/1.png\r\ndogs/ä b.png\r\n".encode("utf-16"),
        b"\xfe\xff" + "cats/1.png\ndogs/ä b.png".encode("utf-16-be"),
        "cats/1.png\ndogs/ä b.png\ncats/1.png\n".encode(),
    ],
)
def test_encodings_spaces_and_repeated_lines(data, tmp_path):
    assert key_lists.read(write(tmp_path, data)) == KEYS


@pytest.mark.parametrize("content", [KEYS, {"keys": KEYS, "name": "forget"}])
def test_json(content, tmp_path):
    path = write(tmp_path, json.dumps(content).encode(), "split.JSON")
    assert key_lists.read(path) == KEYS


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"", "list.txt", "lists no images. Write one key a line"),
        (b"\n \r\n\t\n", "list.txt", "lists no images"),
        (b"cats/1.png\ncats/\xe9.png\n", "list.txt", r"is no UTF-8 text \(line 2\)\. Save it as"),
        ("cats/1.png".encode("utf-16-le"), "list.txt", "is no text: it has zeros"),
        (b"\xff\xfea", "list.txt", "is no UTF-16 text"),
        (b"\x89PNG\r\n\x1a\n", "list.txt", r"is no UTF-8 text \(line 1\)"),
        (b"{", "list.json", "is no JSON: .*Name the file of a split"),
        (b"[" * 100_000, "list.json", "is no JSON"),
        (b'{"key": []}', "list.json", r'has no "keys"'),
        (b"[1, 2]", "list.json", r'has no "keys"'),
        (b"[]", "list.json", "lists no images"),
    ],
)
def test_what_is_no_list(data, name, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        key_lists.read(write(tmp_path, data, name))


def test_no_file_a_folder_a_device_and_a_huge_file(tmp_path):
    with pytest.raises(DataMissing, match=r"does not exist\. It should list image keys"):
        key_lists.read(tmp_path / "nothing.txt")
    with pytest.raises(ConfigError, match=r"is a folder\. Name a text file"):
        key_lists.read(tmp_path)
    with pytest.raises(ConfigError, match=r"is no regular file"):
        key_lists.read(type(tmp_path)("/dev/zero"))
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(key_lists.MAX_BYTES + 1)  # takes no room on the disk
    with pytest.raises(ConfigError, match="a list of image keys has at most 1,073,741,824"):
        key_lists.read(tmp_path / "huge.txt")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("/home/me/pets/cats/001.jpg", "cats/001.jpg"),
        ("./cats/001.jpg", "cats/001.jpg"),
        ("pets/dogs/old/003.png", "dogs/old/003.png"),
        ("dogs\\old\\003.png", "dogs/old/003.png"),
        ('"cats/002.jpg"', "cats/002.jpg"),
        ("Cats/001.JPG", "cats/001.jpg"),
        ("dogs/rex.jpg", "dogs/Rex.JPG"),
        ("rex.png", "dogs/Rex.JPG"),
        ("003.png", "dogs/old/003.png"),
        ("cats/02.jpg", "cats/002.jpg"),
        ("zzzzzzzzzzzzzzzzzzzz", ""),
    ],
)
def test_the_key_that_is_probably_meant(key, meant):
    assert key_lists.nearest(key, KNOWN) == meant


def test_the_error_for_unknown_keys(tmp_path):
    error = key_lists.unknown(tmp_path / "l.txt", {"/data/cats/001.jpg", "x y"}, KNOWN)
    assert "lists 2 images that are not in the data set: '/data/cats/001.jpg', 'x y'." in str(error)
    assert "Did you mean 'cats/001.jpg' for '/data/cats/001.jpg'?" in str(error)
    assert "not from the root of the disk. A key looks like 'cats/001.jpg'." in str(error)
