"""What launch/prepare/{imagenet,places365,coco}.py have in common: check, index, convert."""

import argparse
import dataclasses
import hashlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from l2l_jax.data import data_root, image_folder, image_tree
from l2l_jax.data.records import convert, index, reader
from l2l_jax.lib.errors import Explained
from l2l_jax.types import Source

SAMPLES = 200  # images of each part that are decoded whole


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of a data set, and its data module's functions."""

    title: str
    name: str  # its folder in $L2L_DATA
    tfds: str
    version: str
    fields: reader.Fields
    classes: tuple[str, ...]  # () if it has none
    splits: Mapping[str, str]  # {part: split of TFDS}
    counts: Mapping[str, int]  # {part: images of the whole set}
    archives: Mapping[
        str, tuple[int, str]
    ]  # {file: (bytes, "sha256:..." or "md5:...")}; 0: unknown
    files: Callable[[str, Path], image_tree.ImageTree]
    load: Callable[..., Source]
    record_name: Callable[[str], str]  # the name in a record of the image with this key
    expected: Callable[[str, Path], Sequence[str]] | None = None  # all keys of a part, if known


def main(known: Known, words: Sequence[str] | None = None) -> int:
    """The command line; 0 if all is well, 1 if something is missing or broken."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("absl").setLevel(logging.ERROR)
    given = _parser(known).parse_args(words)
    try:
        return _run(known, given)
    except Explained as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. What is done is kept; the same command goes on.", file=sys.stderr)
        return 130


def _parser(known: Known) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Checks and converts {known.title}.")
    add = parser.add_argument
    add("folder", type=Path, help=f"where {known.title} lies, as files or as records")
    add("--convert", type=Path, metavar="OUT", help=f"write OUT/{known.tfds}/{known.version}")
    add("--workers", type=int, default=os.cpu_count(), help="processes that write")
    add("--strict", action="store_true", help="accept nothing but the whole set")
    add("--archives", action="store_true", help="check the archives there, too: reads all of them")
    add("--per-file", type=int, default=convert.PER_FILE, help="images in a file (default: 1000)")
    return parser


def _run(known: Known, given: argparse.Namespace) -> int:
    root = given.folder.expanduser()
    base, folder = data_root.choose(str(root), known.name, known.tfds, "")
    format = "records" if folder else "folder"
    print(f"{known.title} in {folder or base}, as {format}")
    sound = _archives_are_whole(known, base, given.archives)
    whole = True
    for part in known.counts:
        source = known.load(part, root=str(root), format=format)
        whole &= _report(known, part, source, base)
        sound &= _decodes(source, part)
    if folder:
        _keep_index(known, folder, base)
    if not sound or (given.strict and not whole):
        print("Nothing is converted: see above." if given.convert else "See above.")
        return 1
    if not whole:
        print("It is smaller than the whole set. Runs that name what is there will work.")
    if given.convert and folder:
        print("These are records already: there is nothing to convert.")
    elif given.convert:
        _convert(known, base, given)
    return 0


def _report(known: Known, part: str, source: Source, base: Path) -> bool:
    """Prints what the part holds and lacks; whether it is whole."""
    held, count = len(source.keys), known.counts[part]
    classes = f" in {len(source.classes):,} classes" if known.classes else ""
    print(f"  {part}: {held:,} images{classes}")
    if held == count and (not known.classes or len(source.classes) == len(known.classes)):
        return True
    amount = f"{count - held:,} are missing" if held <= count else f"{held - count:,} are too many"
    print(f"    the whole set has {count:,} images: {amount}")
    if known.classes and (absent := [n for n in known.classes if n not in source.classes]):
        more = f" and {len(absent) - 10:,} more" if len(absent) > 10 else ""
        print(f"    no images of {', '.join(absent[:10])}{more}")
    all_keys = known.expected(part, base) if known.expected else ()
    if len(absent := sorted(set(all_keys).difference(source.keys))) > 0:
        more = f" and {len(absent) - 5:,} more" if len(absent) > 5 else ""
        print(f"    missing: {', '.join(absent[:5])}{more}")
    return False


def _decodes(source: Source, part: str) -> bool:
    """Decodes images from all over the part; prints those that are broken."""
    rows = np.unique(np.linspace(0, len(source.keys) - 1, SAMPLES).astype(int))
    broken = image_folder.broken(source, rows)
    print(f"  {part}: {len(rows) - len(broken)} of {len(rows)} sampled images decode")
    for reason in list(broken.values())[:10]:
        print(f"    {reason}")
    return not broken


def _archives_are_whole(known: Known, base: Path, thorough: bool) -> bool:
    """Compares the archives that lie about with what was published of them."""
    sound = True
    for name, (size, digest) in known.archives.items():
        if not (path := base / name).is_file():
            continue
        held, (kind, true) = path.stat().st_size, digest.split(":")
        if size and held != size:
            print(f"  {path} has {held:,} bytes, not {size:,}: download it again")
            sound = False
        elif thorough:
            with path.open("rb") as file:
                same = hashlib.file_digest(file, kind).hexdigest() == true
            print(f"  {path}: its {kind} is {'right' if same else 'wrong: download it again'}")
            sound &= same
    return sound


def _keep_index(known: Known, folder: Path, base: Path) -> None:
    """Puts the index of records beside them, where other machines find it."""
    for split in known.splits.values():
        found = reader.read(folder, split, known.fields, "{root}: {missing}", base)
        path = index.path_beside(folder, split)
        try:
            digest = index.digest_of(split, known.fields, found.paths)
            index.write(path, digest, found.names, found.labels)
            print(f"  index: {path}")
        except OSError as error:
            print(f"  index: kept in the cache of this machine ({error})")


def _convert(known: Known, base: Path, given: argparse.Namespace) -> None:
    rows = {}
    for part, split in known.splits.items():
        tree = known.files(part, base)
        of = [known.classes.index(name) if known.classes else 0 for name in tree.classes]
        rows[split] = [
            (str(tree.base / path), known.record_name(key), of[label])
            for key, path, label in zip(tree.keys, tree.paths, tree.labels, strict=True)
        ]
    target = convert.Target(
        given.convert.expanduser() / known.tfds / known.version,
        known.tfds.split("/")[0],
        known.classes,
        known.fields,
        given.per_file,
    )
    convert.convert(target, rows, given.workers)
    print(f"Written: {target.folder}\nTo use it: export L2L_DATA={given.convert}")
