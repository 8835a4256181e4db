"""Where data sets lie: an argument, or $L2L_DATA (~/data if that is not set)."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from l2l_jax.data.records import reader
from l2l_jax.lib.errors import DataMissing, unknown

FORMATS = ("folder", "records")
LOOK_AT = 50  # sub-folders, when something is not where it should be


def folder(root: str, name: str = "") -> Path:
    """root if it is given, else $L2L_DATA/name; ~ and variables are filled in."""
    given = root or str(Path(os.environ.get("L2L_DATA") or "~/data") / name)
    return Path(os.path.expandvars(given)).expanduser()


def choose(
    root: str, name: str, tfds: str, format: str, help: str = "", version: str = ""
) -> tuple[Path, Path | None]:
    """(the folder of the set, that of its records if they are to be read).

    Records are taken where both forms are there; format is "folder" or "records" to insist.
    DataMissing, help with {root} and {missing} filled in, for records that are not there then.
    """
    if format and format not in FORMATS:
        raise unknown("format of a data set", format, FORMATS, "It is data.args.format.")
    base = folder(root, name)
    if format == "folder":
        return base, None
    found = reader.find(base, tfds) or (None if root else reader.find(folder(""), tfds))
    if format and not found:
        missing = f"there is no {base / tfds} with {version}/dataset_info.json in it"
        raise DataMissing(help.format(root=base, missing=missing))
    return base, found


def elsewhere(root: Path, names: Sequence[str]) -> str:
    """A sentence with the folder that holds `names`, if it is just above or below root."""

    def fits(path: Path) -> bool:
        return all((path / name).is_dir() for name in names)

    for above in list(root.parents)[:3]:
        if root.is_dir() and fits(above):
            return f"\n{root} is too deep; the folder to name is probably {above}."
    for below in _below(root, 3):
        if fits(below):
            return f"\n{root} is not deep enough; the folder to name is probably {below}."
    return ""


def _below(root: Path, levels: int) -> list[Path]:
    if not levels or not root.is_dir():
        return []
    some = sorted(p for p in itertools.islice(root.iterdir(), 2000) if p.is_dir())[:LOOK_AT]
    return some + [deeper for path in some for deeper in _below(path, levels - 1)]
