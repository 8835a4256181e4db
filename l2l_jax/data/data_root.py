"""Finds the folder of a data set: an argument, or $L2L_DATA (~/data if that is not set)."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from l2l_jax.data.records import reader
from l2l_jax.lib.errors import DataMissing, unknown_name

FORMATS = ("folder", "records")
MAX_ENTRIES = 2000  # of a folder that are looked at to give a hint
MAX_SUBFOLDERS = 50  # the same for its sub-folders


def folder(root: str, name: str = "") -> Path:
    """root, or $L2L_DATA/name if root is empty; ~ and environment variables are expanded."""
    path = root or str(Path(os.environ.get("L2L_DATA") or "~/data") / name)
    return Path(os.path.expandvars(path)).expanduser()


def locate(
    root: str, name: str, tfds: str, format: str, help: str = "", version: str = ""
) -> tuple[Path, Path | None]:
    """(folder of the data set, folder of its records or None if image files are to be read).

    name: folder of the set in $L2L_DATA. tfds: name of the set in TFDS. format: "folder", "records"
    or "" to read records if there are any. Raises DataMissing if format is "records" and there are
    none; its message is `help` with {root} and {missing} filled in.
    """
    if format and format not in FORMATS:
        raise unknown_name("format of a data set", format, FORMATS, "It is data.args.format.")
    base = folder(root, name)
    if format == "folder":
        return base, None
    records = reader.find(base, tfds) or (None if root else reader.find(folder(""), tfds))
    if format and not records:
        missing = f"there is no {base / tfds} with {version}/dataset_info.json in it"
        raise DataMissing(help.format(root=base, missing=missing))
    return base, records


def hint(root: Path, names: Sequence[str]) -> str:
    """A sentence that names the folder with sub-folders `names`, if it is near root; else ""."""

    def fits(path: Path) -> bool:
        return all((path / name).is_dir() for name in names)

    for above in list(root.parents)[:3]:
        if root.is_dir() and fits(above):
            return f"\n{root} is too deep; the folder to name is probably {above}."
    for below in _subfolders(root, 3):
        if fits(below):
            return f"\n{root} is not deep enough; the folder to name is probably {below}."
    return ""


def _subfolders(root: Path, levels: int) -> list[Path]:
    """The first sub-folders of root, down to so many levels."""
    if not levels or not root.is_dir():
        return []
    entries = itertools.islice(root.iterdir(), MAX_ENTRIES)
    direct = sorted(path for path in entries if path.is_dir())[:MAX_SUBFOLDERS]
    return direct + [deeper for path in direct for deeper in _subfolders(path, levels - 1)]
