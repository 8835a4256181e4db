"""Places365-Standard, small images: 1,803,460 training and 36,500 validation scenes, 365 classes.

Reads any of these layouts:

    data_256/a/airfield/*.jpg  val_256/*.jpg  places365_val.txt   the archives and the file lists
    train/airfield/*.jpg       val/airfield/*.jpg                 the "easy directory structure"
    places365_small/2.1.0/*.array_record-*       records of TFDS (launch/prepare/places365.py)

Some classes have two levels, such as "apartment_building/outdoor". Keys and labels are the same in
all layouts: "data_256/a/airfield/<file>" and "val_256/<file>".
"""

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from l2l_jax.data import data_root, image_tree, synthetic
from l2l_jax.data.records import reader
from l2l_jax.lib import bounded
from l2l_jax.lib.errors import ConfigError, DataMissing, unknown_name
from l2l_jax.types import Bounds, Source

log = logging.getLogger(__name__)

COUNTS = {"train": 1_803_460, "eval": 36_500}
STANDARD = ("data_256", "val_256")
EASY = ("train", "val")
SPLITS = {"train": "train", "eval": "validation"}
TFDS = "places365_small"
VERSION = "2.1.0"
FIELDS = reader.Fields(key="filename")
LIST_FOLDERS = ("", "filelist_places365-standard", "..", "../filelist_places365-standard")
OFFICIAL_PREFIX = "Places365_val_"  # of the names of validation images
HELP = """\
Places365-Standard is not in {root}: {missing}.
It is free for research at http://places2.csail.mit.edu/download.html; get the small images
(256 * 256), 24 GB, and unpack train_256_places365standard.tar, val_256.tar and
filelist_places365-standard.tar into one folder:
  {root}/data_256/a/airfield/*.jpg
  {root}/val_256/*.jpg
  {root}/places365_val.txt
The archive with the easy directory structure and the copy of tensorflow-datasets are read, too.
If the folder places365 is elsewhere, name the folder that contains it, export L2L_DATA=FOLDER, or
itself, --config.data.args.root=FOLDER. Then run the same command again."""

EXAMPLE = dict(synthetic=4)
BOUNDS = {"synthetic": Bounds(0, 10**6)}


def load(
    part: str,
    *,
    root: str = "",
    format: str = "",
    synthetic: int = 0,
    synthetic_classes: tuple = (),
) -> Source:
    """The part as a Source. DataMissing if it is not there, ConfigError if its labels are wrong.

    root: folder of the data set, default $L2L_DATA/places365, or $L2L_DATA if that holds records of
    TFDS. format: "folder" or "records" to read only this; "" prefers records. synthetic: number of
    synthetic training images per class that are written to files and used in place of root; 0:
    none. synthetic_classes: their classes, default: the first four.
    """
    if synthetic:
        root, format = str(write_synthetic(synthetic, synthetic_classes)), "folder"
    base, folder = data_root.locate(root, "places365", TFDS, format, HELP, VERSION)
    if folder:
        return _from_records(folder, part, base)
    return files(part, base).source()


@functools.cache
def classes() -> tuple[str, ...]:
    """The 365 class names in the order of categories_places365.txt."""
    path = Path(__file__).parent / "bundled" / "places365_classes.txt"
    return tuple(path.read_text().split())


@functools.cache
def _spellings() -> Mapping[str, str]:
    """{folder: class}; the easy directory structure has a hyphen in place of the slash."""
    return {name: name for name in classes()} | {n.replace("/", "-"): n for n in classes()}


def expected(part: str, base: Path) -> list[str]:
    """The keys of the complete part by the file lists in the folder; [] if they are not there."""
    if part == "eval":
        return [f"val_256/{name}" for name in _validation_classes(base)]
    path = _find_list(base, "places365_train_standard.txt")
    lines = bounded.read_text(path).splitlines() if path else []
    return [f"data_256{line.split()[0]}" for line in lines if line.strip()]


def files(part: str, root: Path) -> image_tree.ImageTree:
    """The part as image files. DataMissing if it is not there, ConfigError for wrong labels."""
    for base in (root, root / "places365_standard"):
        for layout in (STANDARD, EASY):
            if all((base / name).is_dir() for name in layout):
                return _files(part, base, layout)
    missing = "there are neither data_256/ and val_256/ nor train/ and val/"
    missing += data_root.hint(root, STANDARD) or data_root.hint(root, EASY)
    raise DataMissing(HELP.format(root=root, missing=missing))


def _files(part: str, base: Path, layout: tuple[str, str]) -> image_tree.ImageTree:
    train, val = layout
    levels = 2 if layout == STANDARD else 1  # of folders above that of the class
    pairs = [(path, _class_of(path, levels)) for path in image_tree.list_images(base, train)]
    present = image_tree.check_train_classes({name for _, name in pairs}, classes(), base / train)
    if part == "train":
        _log_absent_classes(present, base / train)
        return image_tree.make(base, ((_train_key(p, n), p, n) for p, n in pairs), present)
    paths = image_tree.list_images(base, val)
    listed = _validation_classes(base)
    if layout == STANDARD:
        if not listed:
            missing = "places365_val.txt, which lists the classes of val_256/, is missing"
            raise DataMissing(HELP.format(root=base, missing=missing))
        pairs = [(path, listed.get(Path(path).name, "")) for path in paths]
        if unlisted := [path for path, name in pairs if not name]:
            raise ConfigError(
                f"places365_val.txt does not have the class of {len(unlisted)} images of "
                f"{base / val}, such as {unlisted[0]}: they are of another set."
            )
        pairs = [(path, name) for path, name in pairs if name in present]
    else:
        pairs = [(path, _class_of(path, levels)) for path in paths]
        image_tree.check_eval_classes(
            {name for _, name in pairs}, present, base / val, base / train
        )
        _check_labels(pairs, listed, base / val)
    tree = image_tree.make(base, ((_val_key(p, n), p, n) for p, n in pairs), present)
    image_tree.check_class_sizes(tree.labels, present, base / val)
    return tree


def _log_absent_classes(present: Sequence[str], where: Path) -> None:
    if absent := [name for name in classes() if name not in present]:
        first = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        log.info("%s lacks %d of the 365 classes: %s", where, len(absent), first)


def _class_of(path: str, levels: int) -> str:
    """The class of the image at this path, whose class folder is below so many folders."""
    name = "/".join(path.split("/")[levels:-1])
    return _spellings().get(name, name)


def _train_key(path: str, name: str) -> str:
    return f"data_256/{name[0]}/{name}/{Path(path).name}"


def _val_key(path: str, name: str) -> str:
    file = Path(path).name
    return f"val_256/{file}" if file.startswith(OFFICIAL_PREFIX) else f"val_256/{name}/{file}"


def _find_list(base: Path, name: str) -> Path | None:
    paths = (base / folder / name for folder in LIST_FOLDERS)
    return next((path for path in paths if path.is_file()), None)


def _validation_classes(base: Path) -> dict[str, str]:
    """{validation image: class} of places365_val.txt; {} if there is no such file."""
    if not (path := _find_list(base, "places365_val.txt")):
        return {}
    rows = [line.split() for line in bounded.read_text(path).splitlines() if line.strip()]
    for row in rows:
        if len(row) != 2 or not row[1].isdecimal() or int(row[1]) >= len(classes()):
            raise ConfigError(
                f"{path} should have the number of a class, 0 to 364, of every image, such as "
                f"'Places365_val_00000001.jpg 165'; it has {' '.join(row)!r}."
            )
    return {Path(name).name: classes()[int(number)] for name, number in rows}


def _check_labels(pairs: list[tuple[str, str]], listed: Mapping[str, str], where: Path) -> None:
    """ConfigError if an image, (path, class of its folder), has another class in the file list."""
    wrong = [(p, n) for p, n in pairs if listed.get(Path(p).name, n) != n]
    if wrong:
        path, name = wrong[0]
        raise ConfigError(
            f"The labels of {where} are wrong: {len(wrong):,} images are not of the class they are "
            f"filed under. {path} is filed under {name}, but places365_val.txt lists it as "
            f"{listed[Path(path).name]}. Unpack val/ again."
        )


def _from_records(folder: Path, part: str, base: Path) -> Source:
    """The part from records. As with folders, the classes are those with training images."""
    train = records = reader.read(folder, SPLITS["train"], FIELDS, HELP, base)
    present = np.unique(train.labels)
    if part == "eval":
        records = reader.read(folder, SPLITS[part], FIELDS, HELP, base)
        found = {records.classes[label] for label in records.labels}
        known = [records.classes[label] for label in present]
        where = (folder / SPLITS[part], folder / SPLITS["train"])
        image_tree.check_eval_classes(found, known, *where)
    names = [name[3:] if name[0] == "/" else name for name in train.classes]  # "/a/airfield"
    labels = np.searchsorted(present, records.labels)
    return reader.source(records, records.names, labels, tuple(names[label] for label in present))


def write_synthetic(count: int, chosen: Sequence[str]) -> Path:
    """The root of a folder of `count` synthetic training images per class, and validation images.

    chosen: class names; if empty, the first four.
    """
    names = tuple(chosen) or classes()[:4]
    if others := [name for name in names if name not in classes()]:
        advice = "It is in data.args.synthetic_classes."
        raise unknown_name("class", others[0], classes()[:5], advice)
    images, lines, per_class = [], [], synthetic.eval_count(count)
    for label, name in enumerate(names):
        images += [(f"data_256/{name[0]}/{name}/{i + 1:08d}.jpg", label) for i in range(count)]
        for number in range(label * per_class + 1, (label + 1) * per_class + 1):
            images.append((f"val_256/{OFFICIAL_PREFIX}{number:08d}.jpg", label))
            lines.append(f"{OFFICIAL_PREFIX}{number:08d}.jpg {classes().index(name)}\n")
    return synthetic.write_tree("places365", images, {"places365_val.txt": "".join(lines)})
