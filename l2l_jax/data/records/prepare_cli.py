"""The command line of launch/prepare/{imagenet,places365,coco}.py: check, index, convert."""

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
from l2l_jax.data.records import convert, index, reader, writer
from l2l_jax.lib.errors import ConfigError, UserError
from l2l_jax.types import Source

DECODED_IMAGES = 200  # images of each part that are decoded


@dataclasses.dataclass(frozen=True)
class DatasetFacts:
    """Published facts about a data set, and the functions of its plug-in."""

    title: str
    name: str  # its folder in $L2L_DATA
    tfds: str  # its name in TFDS
    version: str  # its version in TFDS
    fields: reader.Fields
    classes: tuple[str, ...]  # class names, the label is the position; () if there are no labels
    splits: Mapping[str, str]  # {part: split of TFDS}
    counts: Mapping[str, int]  # {part: images of the complete set}
    archives: Mapping[str, tuple[int, str]]  # {file: (bytes or 0, "sha256:..." or "md5:...")}
    files: Callable[[str, Path], image_tree.ImageTree]  # files(part, root)
    load: Callable[..., Source]  # load(part, *, root, format)
    record_name: Callable[[str], str]  # record_name(key): the name of an image in its record
    expected: Callable[[str, Path], Sequence[str]] | None = None  # expected(part, root): all keys
    #     of the complete part, [] if they are unknown


def main(facts: DatasetFacts, arguments: Sequence[str] | None = None) -> int:
    """Runs the command line (arguments: default sys.argv) and returns the exit code.

    0: no problem. 1: the data set is missing, broken, or with --strict not complete. 130: stopped.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("absl").setLevel(logging.ERROR)
    args = _parser(facts).parse_args(arguments)
    try:
        return _run(facts, args)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. What is done is kept; the same command continues.", file=sys.stderr)
        return 130


def _parser(facts: DatasetFacts) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Checks and converts {facts.title}.")
    add = parser.add_argument
    add("folder", type=Path, help=f"folder of {facts.title}, as image files or as records")
    add(
        "--convert",
        type=Path,
        metavar="OUT",
        help=f"write records to OUT/{facts.tfds}/{facts.version}",
    )
    add("--workers", type=int, default=os.cpu_count(), help="number of writing processes")
    add("--strict", action="store_true", help="fail unless the data set is complete")
    add("--archives", action="store_true", help="also check the digests of archives in the folder")
    add(
        "--side",
        type=int,
        default=0,
        metavar="PIXELS",
        help="with --convert: resize larger images to so many pixels on the shorter side",
    )
    add("--raw", action="store_true", help="with --side: store pixels in place of JPEG files")
    per_file = convert.IMAGES_PER_FILE
    add("--per-file", type=int, default=per_file, help=f"images per file (default: {per_file})")
    return parser


def _run(facts: DatasetFacts, args: argparse.Namespace) -> int:
    form = _form(args)
    root = args.folder.expanduser()
    base, records = data_root.locate(str(root), facts.name, facts.tfds, "")
    format = "records" if records else "folder"
    print(f"{facts.title} in {records or base}, as {format}")
    sound = _check_archives(facts, base, args.archives)
    complete = True
    for part in facts.counts:
        source = facts.load(part, root=str(root), format=format)
        complete &= _report_missing(facts, part, source, base)
        sound &= _check_images(source, part)
    if records:
        _store_index(facts, records, base)
    if not sound or (args.strict and not complete):
        print("Nothing is converted: see above." if args.convert else "See above.")
        return 1
    if not complete:
        print("The data set is not complete. Runs that only use the present classes will work.")
    if args.convert and records:
        print("These are records already: there is nothing to convert.")
    elif args.convert:
        _convert(facts, base, args, form)
    return 0


def _form(args: argparse.Namespace) -> writer.Form:
    """What is stored of an image. ConfigError for flags that have no effect or make no sense."""
    if args.side and not args.convert:
        raise ConfigError("--side says what --convert writes: add --convert OUT.")
    if args.raw and not args.side:
        raise ConfigError("--raw stores resized images: add their size, such as --side 256.")
    if args.side < 0 or 0 < args.side < writer.LEAST_SIDE:
        raise ConfigError(
            f"--side={args.side}: images have at least {writer.LEAST_SIDE} pixels on the shorter "
            "side; 256 suits models for 224 and 256 pixels."
        )
    return writer.Form(args.side, args.raw)


def _report_missing(facts: DatasetFacts, part: str, source: Source, base: Path) -> bool:
    """Prints what the part contains and what is missing; returns whether it is complete."""
    present, count = len(source.keys), facts.counts[part]
    classes = f" in {len(source.classes):,} classes" if facts.classes else ""
    print(f"  {part}: {present:,} images{classes}")
    if present == count and (not facts.classes or len(source.classes) == len(facts.classes)):
        return True
    difference = count - present
    amount = f"{difference:,} are missing" if difference >= 0 else f"{-difference:,} are too many"
    print(f"    the whole set has {count:,} images: {amount}")
    if facts.classes and (absent := [n for n in facts.classes if n not in source.classes]):
        more = f" and {len(absent) - 10:,} more" if len(absent) > 10 else ""
        print(f"    no images of {', '.join(absent[:10])}{more}")
    all_keys = facts.expected(part, base) if facts.expected else ()
    if absent := sorted(set(all_keys).difference(source.keys)):
        more = f" and {len(absent) - 5:,} more" if len(absent) > 5 else ""
        print(f"    missing: {', '.join(absent[:5])}{more}")
    return False


def _check_images(source: Source, part: str) -> bool:
    """Decodes a sample of images and prints which are broken; returns whether none is."""
    rows = np.unique(np.linspace(0, len(source.keys) - 1, DECODED_IMAGES).astype(int))
    reasons, _ = image_folder.read_all(source, rows)
    print(f"  {part}: {len(rows) - len(reasons)} of {len(rows)} sampled images decode")
    for reason in list(reasons.values())[:10]:
        print(f"    {reason}")
    return not reasons


def _check_archives(facts: DatasetFacts, base: Path, digests: bool) -> bool:
    """Compares sizes, and on demand digests, of archives in the folder with the published ones.

    Prints the differences; returns whether there are none.
    """
    sound = True
    for name, (size, digest) in facts.archives.items():
        if not (path := base / name).is_file():
            continue
        actual, (algorithm, expected) = path.stat().st_size, digest.split(":")
        if size and actual != size:
            print(f"  {path} has {actual:,} bytes, not {size:,}: download it again")
            sound = False
        elif digests:
            with path.open("rb") as file:
                same = hashlib.file_digest(file, algorithm).hexdigest() == expected
            verdict = "right" if same else "wrong: download it again"
            print(f"  {path}: its {algorithm} is {verdict}")
            sound &= same
    return sound


def _store_index(facts: DatasetFacts, folder: Path, base: Path) -> None:
    """Writes the index of records beside them, so that every machine finds it."""
    for split in facts.splits.values():
        records = reader.read(folder, split, facts.fields, "{root}: {missing}", base)
        path = index.path_beside(folder, split)
        try:
            digest = index.digest_of(split, facts.fields, records.paths)
            index.write(path, digest, records.names, records.labels)
            print(f"  index: {path}")
        except OSError as error:
            print(f"  index: only in the cache of this machine ({error})")


def _convert(facts: DatasetFacts, base: Path, args: argparse.Namespace, form: writer.Form) -> None:
    rows = {}
    for part, split in facts.splits.items():
        tree = facts.files(part, base)
        record_labels = [facts.classes.index(c) if facts.classes else 0 for c in tree.classes]
        rows[split] = [
            (str(tree.base / path), facts.record_name(key), record_labels[label])
            for key, path, label in zip(tree.keys, tree.paths, tree.labels, strict=True)
        ]
    target = convert.Target(
        args.convert.expanduser() / facts.tfds / facts.version,
        facts.tfds.split("/")[0],
        facts.classes,
        facts.fields,
        args.per_file,
        form,
    )
    convert.convert(target, rows, args.workers)
    print(f"Written: {target.folder}\nTo use it: export L2L_DATA={args.convert}")
