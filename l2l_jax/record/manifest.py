"""The files of a record and their SHA-256, as an in-toto statement."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from l2l_jax.lib import bounded, files
from l2l_jax.lib.errors import Damaged

NAME = "manifest.json"
SIGNATURE = "signature.sigstore.json"  # a DSSE bundle; see signing.py
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:l2l_jax:record:v1"
MAX_BYTES = 1 << 26  # of a file of a record
REMEDY = "Write the record again with 'python -m l2l_jax.record write'."


def make(folder: Path) -> dict[str, Any]:
    """The statement about all files in a record except itself and the signature."""
    subjects = [
        {"name": name, "digest": {"sha256": sha256(folder / name)}} for name in names(folder)
    ]
    return {"_type": STATEMENT, "predicateType": PREDICATE, "predicate": {}, "subject": subjects}


def write(folder: Path) -> None:
    """Writes the manifest of a record."""
    content = json.dumps(make(folder), indent=1, sort_keys=True)
    with files.atomic_write(folder / NAME) as file:
        file.write(content.encode() + b"\n")


def names(folder: Path) -> list[str]:
    """The files of a record that a manifest lists, sorted."""
    found = (path for path in folder.iterdir() if path.is_file())
    return sorted(path.name for path in found if path.name not in (NAME, SIGNATURE))


def differences(folder: Path) -> Iterator[str]:
    """What in a record does not fit its manifest, a sentence for each file."""
    try:
        statement = json.loads(bounded.read(folder / NAME, MAX_BYTES))
        listed = {item["name"]: item["digest"]["sha256"] for item in statement["subject"]}
        known = statement["_type"] == STATEMENT and statement["predicateType"] == PREDICATE
    except FileNotFoundError:
        raise Damaged(f"{folder / NAME} is missing. {REMEDY}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{folder / NAME} is damaged: {type(error).__name__}. {REMEDY}") from error
    if not known:
        yield f"{NAME} is not the manifest of a record of this project"
    present = names(folder)
    for name in sorted(listed.keys() - set(present)):
        yield f"{name} is missing"
    for name in present:
        if name not in listed:
            yield f"{name} is not in the manifest"
        elif sha256(folder / name) != listed[name]:
            yield f"{name} is not the file that the manifest lists"


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(bounded.read(path, MAX_BYTES)).hexdigest()
