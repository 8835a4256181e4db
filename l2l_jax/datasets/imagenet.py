"""ImageNet-1K (ILSVRC 2012): 1,281,167 training and 50,000 validation photographs, 1,000 classes.

Reads any of these layouts:

    train/<wnid>/*.JPEG  val/<wnid>/*.JPEG                 one folder for every class
    train/<wnid>/*.JPEG  val/ILSVRC2012_val_*.JPEG         validation images as in their archive
    ILSVRC/Data/CLS-LOC/{train,val}  LOC_val_solution.csv  the copy of Kaggle
    imagenet2012/5.1.0/*.array_record-*                    records of TFDS (launch/prepare/imagenet)

Classes are WordNet ids (wnid) such as "n01440764". Keys and labels are the same in all layouts:
"train/<wnid>/<file>" and "val/<wnid>/<file>".
"""

import functools
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from l2l_jax.data import data_root, image_tree, synthetic
from l2l_jax.data.records import reader
from l2l_jax.lib import bounded
from l2l_jax.lib.errors import ConfigError, DataMissing, unknown_name
from l2l_jax.types import Bounds, Source

log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "bundled"
COUNTS = {"train": 1_281_167, "eval": 50_000}
FOLDERS = {"train": "train", "eval": "val"}
SPLITS = {"train": "train", "eval": "validation"}
TFDS = "imagenet2012"
VERSION = "5.1.0"
FIELDS = reader.Fields(key="file_name")
KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
LABEL_FILES = ("LOC_val_solution.csv", "val_map.txt")  # a line: image, wnid, ignored columns
OFFICIAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
HELP = """\
ImageNet-1K is not in {root}: {missing}.
It is free for research at https://image-net.org/download.php after registration; get
ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar and unpack them into one folder per class:
  {root}/train/n01440764/*.JPEG   (1,000 folders)
  {root}/val/n01440764/*.JPEG     (the same 1,000 folders, or all images in val/ itself)
The copies of Kaggle (imagenet-object-localization-challenge) and tensorflow-datasets are read, too.
If the folder imagenet is elsewhere, name the folder that contains it, export L2L_DATA=FOLDER, or
itself, --config.data.args.root=FOLDER. Then run the same command again. To try a run without
ImageNet, use synthetic images:
  python -m l2l_jax.main --config configs/mae_imagenet.py:smoke --workdir runs/smoke"""

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

    root: folder of the data set, default $L2L_DATA/imagenet, or $L2L_DATA if that holds records of
    TFDS. format: "folder" or "records" to read only this; "" prefers records. synthetic: number of
    synthetic training images per class that are written to files and used in place of root; 0:
    none. synthetic_classes: their classes, default: the first four.
    """
    if synthetic:
        root, format = str(write_synthetic(synthetic, synthetic_classes)), "folder"
    base, folder = data_root.locate(root, "imagenet", TFDS, format, HELP, VERSION)
    if folder:
        return _from_records(folder, part, base)
    tree = files(part, base)
    return tree.source(titles=tuple(titles().get(name, name) for name in tree.classes))


@functools.cache
def titles() -> Mapping[str, str]:
    """{wnid: human-readable name} of the 1,000 classes, sorted by wnid."""
    lines = (BUNDLED / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


@functools.cache
def validation_labels() -> np.ndarray:
    """uint16 [50,000]: published labels of ILSVRC2012_val_00000001.JPEG and the following."""
    with np.load(BUNDLED / "imagenet_val.npz") as arrays:
        return arrays["labels"]


def expected(part: str, _root: Path) -> list[str]:
    """The keys of the complete part; [] for "train", whose file names are not published."""
    wnids = list(titles())
    names = enumerate(validation_labels(), 1) if part == "eval" else ()
    return [f"val/{wnids[label]}/ILSVRC2012_val_{number:08d}.JPEG" for number, label in names]


def files(part: str, root: Path) -> image_tree.ImageTree:
    """The part as image files. DataMissing if it is not there, ConfigError for wrong labels."""
    base = next((p for p in (root, *map(root.joinpath, KAGGLE)) if _has_both(p)), None)
    if base is None:
        raise DataMissing(HELP.format(root=root, missing=_describe_missing(root)))
    train = image_tree.list_images(base, "train")
    classes = _train_classes([path.split("/")[1] for path in train], base)
    if part == "train":
        _log_absent_classes(classes, base / "train")
        return image_tree.make(base, ((path, path, path.split("/")[1]) for path in train), classes)
    pairs = _validation(root, base, classes)
    _check_labels(((Path(path).name, wnid) for path, wnid in pairs), base / "val")
    tree = image_tree.make(base, ((_val_key(p, wnid), p, wnid) for p, wnid in pairs), classes)
    image_tree.check_class_sizes(tree.labels, classes, base / "val")
    return tree


def _validation(root: Path, base: Path, classes: Sequence[str]) -> list[tuple[str, str]]:
    """[(path, wnid)] of the images of val/, from their folders, a label file or their names.

    Images of classes without training images are left out, or an error if they are in folders.
    """
    paths, val = image_tree.list_images(base, "val"), base / "val"
    flat = [path for path in paths if path.count("/") == 1]
    if not flat:
        pairs = [(path, path.split("/")[1]) for path in paths]
        image_tree.check_eval_classes({wnid for _, wnid in pairs}, classes, val, base / "train")
        return pairs
    if len(flat) < len(paths):
        raise ConfigError(
            f"{val} holds images ({flat[0]}) beside folders of images "
            f"({next(path for path in paths if path.count('/') > 1)}): it must be one or the other."
        )
    class_of = _label_file(root, base) or _published_names(flat, base)
    if unlabelled := [path for path in paths if Path(path).stem not in class_of]:
        raise ConfigError(
            f"The label file of {base} does not have the class of {len(unlabelled)} images of "
            f"val/, such as {unlabelled[0]}."
        )
    pairs = [(path, class_of[Path(path).stem]) for path in paths]
    known = [(path, wnid) for path, wnid in pairs if wnid in classes]
    if ignored := len(pairs) - len(known):
        log.info("%d images of %s are left out: their classes are not in train/", ignored, val)
    return known


def _val_key(path: str, wnid: str) -> str:
    return path if path.count("/") > 1 else f"val/{wnid}/{Path(path).name}"


def _has_both(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in FOLDERS.values())


def _describe_missing(root: Path) -> str:
    missing = [f"{name}/" for name in FOLDERS.values() if not (root / name).is_dir()]
    text = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    tars = sorted(path.name for path in root.glob("*.tar"))
    text += f" ({', '.join(tars[:3])} must be unpacked)" if tars else ""
    return text + data_root.hint(root, tuple(FOLDERS.values()))


def _train_classes(names: Iterable[str], base: Path) -> list[str]:
    """The wnids of the training images, sorted."""
    names, where = set(names), base / "train"
    if others := sorted(name for name in names if not re.fullmatch(r"n\d+", name)):
        nested = where / others[0]
        deeper = nested.is_dir() and any(re.fullmatch(r"n\d+", p.name) for p in nested.iterdir())
        raise ConfigError(
            f"{where} should hold folders such as n01440764 and nothing else, but it holds "
            f"{', '.join(others[:5])}. "
            + (
                f"Move the content of {nested} one level up."
                if deeper
                else "For other images use --config.data.name=folder."
            )
        )
    if len(names) < 2:
        tars = len(list(where.glob("n*.tar")))
        missing = (
            f"{where} has images of {len(names)} of the 1,000 classes, at least two are needed"
        )
        if tars:
            missing += f"; its {tars} .tar files must be unpacked into folders of their names"
        raise DataMissing(HELP.format(root=base, missing=missing))
    return sorted(names)


def _log_absent_classes(classes: Sequence[str], where: Path) -> None:
    if absent := [f"{wnid} ({name})" for wnid, name in titles().items() if wnid not in classes]:
        first = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        log.info("%s lacks %d of the 1,000 classes: %s", where, len(absent), first)


def _label_file(root: Path, base: Path) -> dict[str, str]:
    """{image name without suffix: wnid} of the first label file from base up to root; else {}."""
    for folder in (base / "val", base, *(p for p in base.parents if p.is_relative_to(root))):
        for path in (folder / name for name in LABEL_FILES):
            if path.is_file():
                lines = bounded.read_text(path).splitlines()
                rows = (re.split(r"[,\s]+", line.strip()) for line in lines)
                rows = [row for row in rows if len(row) > 1 and row[0] != "ImageId"]
                if bad := [row for row in rows if not re.fullmatch(r"n\d+", row[1])]:
                    raise ConfigError(
                        f"{path} should have the wnid of every image, such as "
                        f"'ILSVRC2012_val_00000001 n01751748'; it has {' '.join(bad[0][:3])!r}."
                    )
                return {Path(row[0]).stem: row[1] for row in rows}
    return {}


def _published_names(paths: Sequence[str], base: Path) -> dict[str, str]:
    """{image name without suffix: wnid} of images with official names, by published labels."""
    wnids, class_of = list(titles()), {}
    for path in paths:
        if not (number := _number(Path(path).name)):
            raise ConfigError(
                f"The images of {base / 'val'} are not in folders of their classes, and {path} is "
                "no name of ILSVRC such as ILSVRC2012_val_00000001.JPEG. Sort them into folders, "
                f"or list their classes in {base / LABEL_FILES[1]}, one line 'FILE WNID' for each."
            )
        class_of[Path(path).stem] = wnids[validation_labels()[number - 1]]
    return class_of


def _number(name: str) -> int:
    """The number, 1 to 50,000, in the official name of a validation image; 0 for other names."""
    match = OFFICIAL_NAME.fullmatch(name)
    return int(match[1]) if match and int(match[1]) <= len(validation_labels()) else 0


def _check_labels(pairs: Iterable[tuple[str, str]], where: Path) -> None:
    """ConfigError if a validation image, (file, wnid), has another published label."""
    wnids, known = list(titles()), titles()
    wrong = [
        (name, wnid, wnids[validation_labels()[number - 1]])
        for name, wnid in pairs
        if (number := _number(name))
        and wnid in known
        and wnids[validation_labels()[number - 1]] != wnid
    ]
    if wrong:
        name, wnid, true = wrong[0]
        raise ConfigError(
            f"The labels of {where} are wrong: {len(wrong):,} images are not of the class they are "
            f"filed under. {name} is filed under {wnid} ({known[wnid]}) and is {true} "
            f"({known[true]}). Sort val/ again, or move all images into val/ itself: their names "
            "determine their classes."
        )


def _from_records(folder: Path, part: str, base: Path) -> Source:
    """The part from records. As with folders, the classes are those with training images."""
    train = records = reader.read(folder, SPLITS["train"], FIELDS, HELP, base)
    present = np.unique(train.labels)
    classes = tuple(train.classes[at] for at in present)
    if part == "eval":
        records = reader.read(folder, SPLITS[part], FIELDS, HELP, base)
        wnids = [records.classes[label] for label in records.labels]
        where = folder / SPLITS[part]
        image_tree.check_eval_classes(set(wnids), classes, where, folder / SPLITS["train"])
        _check_labels(zip(records.names, wnids, strict=True), where)
    pairs = zip(records.names, records.labels, strict=True)
    keys = [f"{FOLDERS[part]}/{records.classes[label]}/{name}" for name, label in pairs]
    labels = np.searchsorted(present, records.labels)
    class_titles = tuple(titles().get(name, name) for name in classes)
    return reader.source(records, keys, labels, classes, titles=class_titles)


def write_synthetic(count: int, classes: Sequence[str]) -> Path:
    """The root of a folder of `count` synthetic training images per class, and validation images.

    classes: wnids; if empty, the first four.
    """
    wnids = list(titles())
    chosen = tuple(classes) or tuple(wnids[:4])
    if others := [name for name in chosen if name not in titles()]:
        raise unknown_name("class", others[0], wnids[:5], "It is in data.args.synthetic_classes.")
    images = [
        (f"train/{wnid}/{wnid}_{i}.JPEG", label)
        for label, wnid in enumerate(chosen)
        for i in range(count)
    ]
    for label, wnid in enumerate(chosen):
        numbers = 1 + np.flatnonzero(validation_labels() == wnids.index(wnid))
        names = [f"ILSVRC2012_val_{n:08d}.JPEG" for n in numbers[: synthetic.eval_count(count)]]
        images += [(f"val/{wnid}/{name}", label) for name in names]
    return synthetic.write_tree("imagenet", images, {})
