"""Places365-Standard, small images: 1,803,460 training and 36,500 validation scenes, 365 classes.

Read from any of

    data_256/a/airfield/*.jpg  val_256/*.jpg  places365_val.txt   the archives and the file lists
    train/airfield/*.jpg       val/airfield/*.jpg                 the "easy directory structure"
    places365_small/2.1.0/*.array_record-*       TFDS's (launch/prepare/places365.py)

A class of two words is "apartment_building/outdoor". Keys and labels are the same in each form:
"data_256/a/airfield/<file>" and "val_256/<file>".
"""

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from l2l_jax.data import data_root, image_tree, synthetic
from l2l_jax.data.records import reader
from l2l_jax.lib.errors import ConfigError, DataMissing, unknown
from l2l_jax.types import Source

log = logging.getLogger(__name__)

COUNTS = {"train": 1_803_460, "eval": 36_500}
STANDARD = ("data_256", "val_256")
EASY = ("train", "val")
SPLITS = {"train": "train", "eval": "validation"}
TFDS = "places365_small"
VERSION = "2.1.0"
FIELDS = reader.Fields(key="filename")
LISTS = ("", "filelist_places365-standard", "..", "../filelist_places365-standard")
NAMED = "Places365_val_"  # so the official names of validation images begin
HELP = """\
Places365-Standard is not in {root}: {missing}.
It is free for research at http://places2.csail.mit.edu/download.html; get the small images
(256 * 256), 24 GB, and unpack train_256_places365standard.tar, val_256.tar and
filelist_places365-standard.tar into one folder:
  {root}/data_256/a/airfield/*.jpg
  {root}/val_256/*.jpg
  {root}/places365_val.txt
The archive with the easy directory structure and the copy of tensorflow-datasets do, too.
If it lies elsewhere, say so: export L2L_DATA=FOLDER_OF_places365, or
--config.data.args.root=FOLDER. Then run the same command again."""

EXAMPLE = dict(synthetic=4)


def load(
    part: str,
    *,
    root: str = "",
    format: str = "",
    synthetic: int = 0,
    synthetic_classes: tuple = (),
) -> Source:
    """root defaults to $L2L_DATA/places365, or $L2L_DATA if TFDS has it there.

    format is "folder" or "records" if it should not be found out. synthetic: so many made-up
    training images of each of synthetic_classes (default: the first four) in files, in place of
    root.
    """
    if synthetic:
        root, format = str(make_up(synthetic, synthetic_classes)), "folder"
    base, folder = data_root.choose(root, "places365", TFDS, format, HELP, VERSION)
    if folder:
        return _from_records(folder, part, base)
    return files(part, base).source()


@functools.cache
def classes() -> tuple[str, ...]:
    """The 365 names in the order of categories_places365.txt."""
    path = Path(__file__).parent / "bundled" / "places365_classes.txt"
    return tuple(path.read_text().split())


@functools.cache
def _spellings() -> Mapping[str, str]:
    """{folder: class}; the easy structure has a hyphen in the place of the slash."""
    return {name: name for name in classes()} | {n.replace("/", "-"): n for n in classes()}


def expected(part: str, base: Path) -> list[str]:
    """The keys of the whole part, as the file lists tell, if they are there."""
    if part == "eval":
        return [f"val_256/{name}" for name in _list(base)]
    path = _find_list(base, "places365_train_standard.txt")
    lines = path.read_text().splitlines() if path else []
    return [f"data_256{line.split()[0]}" for line in lines if line.strip()]


def files(part: str, root: Path) -> image_tree.ImageTree:
    """The part as image files. DataMissing if they are not there, ConfigError if they are mixed."""
    for base in (root, root / "places365_standard"):
        for layout in (STANDARD, EASY):
            if all((base / name).is_dir() for name in layout):
                return _files(part, base, layout)
    missing = "there are neither data_256/ and val_256/ nor train/ and val/"
    missing += data_root.elsewhere(root, STANDARD) or data_root.elsewhere(root, EASY)
    raise DataMissing(HELP.format(root=root, missing=missing))


def _files(part: str, base: Path, layout: tuple[str, str]) -> image_tree.ImageTree:
    train, val = layout
    above = 2 if layout == STANDARD else 1  # folders above that of the class
    found = [(path, _class_of(path, above)) for path in image_tree.below(base, train)]
    here = image_tree.check_classes({name for _, name in found}, classes(), base / train)
    if len(here) < len(classes()) and part == "train":
        absent = [name for name in classes() if name not in here]
        some = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        log.info("%s lacks %d of the 365 classes: %s", base / train, len(absent), some)
    if part == "train":
        return image_tree.make(base, ((_train_key(p, n), p, n) for p, n in found), here)
    paths = image_tree.below(base, val)
    listed = _list(base)
    if layout == STANDARD:
        if not listed:
            missing = "places365_val.txt, which tells the classes of val_256/, is missing"
            raise DataMissing(HELP.format(root=base, missing=missing))
        found = [(path, listed.get(Path(path).name, "")) for path in paths]
        if strangers := [path for path, name in found if not name]:
            raise ConfigError(
                f"places365_val.txt does not tell the class of {len(strangers)} images of "
                f"{base / val}, such as {strangers[0]}: they are of another set."
            )
        found = [(path, name) for path, name in found if name in here]
    else:
        found = [(path, _class_of(path, above)) for path in paths]
        image_tree.check_strangers({name for _, name in found}, here, base / val, base / train)
        _check_labels(found, listed, base / val)
    tree = image_tree.make(base, ((_val_key(p, n), p, n) for p, n in found), here)
    image_tree.check_counts(tree.labels, here, base / val)
    return tree


def _class_of(path: str, above: int) -> str:
    name = "/".join(path.split("/")[above:-1])
    return _spellings().get(name, name)


def _train_key(path: str, name: str) -> str:
    return f"data_256/{name[0]}/{name}/{Path(path).name}"


def _val_key(path: str, name: str) -> str:
    file = Path(path).name
    return f"val_256/{file}" if file.startswith(NAMED) else f"val_256/{name}/{file}"


def _find_list(base: Path, name: str) -> Path | None:
    found = (base / folder / name for folder in LISTS)
    return next((path for path in found if path.is_file()), None)


def _list(base: Path) -> dict[str, str]:
    """{validation image: class} of places365_val.txt; empty if it is not there."""
    if not (path := _find_list(base, "places365_val.txt")):
        return {}
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    for row in rows:
        if len(row) != 2 or not row[1].isdecimal() or int(row[1]) >= len(classes()):
            raise ConfigError(
                f"{path} should tell the number of a class, 0 to 364, of every image, such as "
                f"'Places365_val_00000001.jpg 165'; it says {' '.join(row)!r}."
            )
    return {Path(name).name: classes()[int(number)] for name, number in rows}


def _check_labels(found: list[tuple[str, str]], listed: Mapping[str, str], where: Path) -> None:
    """ConfigError if the file list says otherwise of images that are in folders."""
    wrong = [(p, n) for p, n in found if listed.get(Path(p).name, n) != n]
    if wrong:
        path, name = wrong[0]
        raise ConfigError(
            f"The labels of {where} are mixed up: {len(wrong):,} images are not of the class they "
            f"are filed under. {path} is filed under {name} and is "
            f"{listed[Path(path).name]}, says places365_val.txt. Unpack val/ anew."
        )


def _from_records(folder: Path, part: str, base: Path) -> Source:
    """The classes are those with training images, as in folders."""
    train = found = reader.read(folder, SPLITS["train"], FIELDS, HELP, base)
    present = np.unique(train.labels)
    if part == "eval":
        found = reader.read(folder, SPLITS[part], FIELDS, HELP, base)
        names = {found.classes[label] for label in found.labels}
        known = [found.classes[label] for label in present]
        where = (folder / SPLITS[part], folder / SPLITS["train"])
        image_tree.check_strangers(names, known, *where)
    names = [name[3:] if name[0] == "/" else name for name in train.classes]  # "/a/airfield"
    labels = np.searchsorted(present, found.labels)
    return reader.source(found, found.names, labels, tuple(names[at] for at in present))


def make_up(count: int, chosen: Sequence[str]) -> Path:
    """The root of a tree with `count` made-up training images of each class, and some to test."""
    names = tuple(chosen) or classes()[:4]
    if strangers := [name for name in names if name not in classes()]:
        advice = "It is in data.args.synthetic_classes."
        raise unknown("class", strangers[0], classes()[:5], advice)
    images, listed, held = [], [], synthetic.held_out(count)
    for at, name in enumerate(names):
        images += [(f"data_256/{name[0]}/{name}/{i + 1:08d}.jpg", at) for i in range(count)]
        for number in range(at * held + 1, (at + 1) * held + 1):
            images.append((f"val_256/{NAMED}{number:08d}.jpg", at))
            listed.append(f"{NAMED}{number:08d}.jpg {classes().index(name)}\n")
    return synthetic.tree("places365", images, {"places365_val.txt": "".join(listed)})
