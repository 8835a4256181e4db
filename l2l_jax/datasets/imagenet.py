"""ImageNet-1K (ILSVRC 2012): 1,281,167 training and 50,000 validation photographs, 1,000 classes.

Read from any of

    train/<wnid>/*.JPEG  val/<wnid>/*.JPEG                 one folder for every class
    train/<wnid>/*.JPEG  val/ILSVRC2012_val_*.JPEG         validation images as unpacked
    ILSVRC/Data/CLS-LOC/{train,val}  LOC_val_solution.csv  Kaggle's
    imagenet2012/5.1.0/*.array_record-*                    TFDS's (launch/prepare/imagenet.py)

Keys and labels are the same in each: "train/<wnid>/<file>" and "val/<wnid>/<file>".
"""

import functools
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from l2l_jax.data import data_root, image_tree, synthetic
from l2l_jax.data.records import reader
from l2l_jax.lib.errors import ConfigError, DataMissing, unknown
from l2l_jax.types import Source

log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "bundled"
COUNTS = {"train": 1_281_167, "eval": 50_000}
FOLDERS = {"train": "train", "eval": "val"}
SPLITS = {"train": "train", "eval": "validation"}
TFDS = "imagenet2012"
VERSION = "5.1.0"
FIELDS = reader.Fields(key="file_name")
KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
LABELS = ("LOC_val_solution.csv", "val_map.txt")  # a line: image, wnid, and what does not matter
OFFICIAL = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
HELP = """\
ImageNet-1K is not in {root}: {missing}.
It is free for research at https://image-net.org/download.php after registration; get
ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar and unpack them into one folder per class:
  {root}/train/n01440764/*.JPEG   (1,000 folders)
  {root}/val/n01440764/*.JPEG     (the same 1,000 folders, or all images in val/ itself)
Kaggle's copy (imagenet-object-localization-challenge) and that of tensorflow-datasets do, too.
If it lies elsewhere, say so: export L2L_DATA=FOLDER_OF_imagenet, or --config.data.args.root=FOLDER.
Then run the same command again. To see the run without ImageNet, use made-up images:
  python -m l2l_jax.main --config configs/mae_imagenet.py:smoke --workdir runs/smoke"""

EXAMPLE = dict(synthetic=4)


def load(
    part: str,
    *,
    root: str = "",
    format: str = "",
    synthetic: int = 0,
    synthetic_classes: tuple = (),
) -> Source:
    """root defaults to $L2L_DATA/imagenet, or $L2L_DATA if TFDS has it there; classes are wnids.

    format is "folder" or "records" if it should not be found out. synthetic: so many made-up
    training images of each of synthetic_classes (default: the first four) in files, in place of
    root.
    """
    if synthetic:
        root, format = str(make_up(synthetic, synthetic_classes)), "folder"
    base, folder = data_root.choose(root, "imagenet", TFDS, format, HELP, VERSION)
    if folder:
        return _from_records(folder, part, base)
    tree = files(part, base)
    return tree.source(titles=tuple(titles().get(name, name) for name in tree.classes))


@functools.cache
def titles() -> Mapping[str, str]:
    """{wnid: human name} of the 1,000 classes, sorted by wnid."""
    lines = (BUNDLED / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


@functools.cache
def published() -> np.ndarray:
    """[50,000] uint16: the class, in the order of wnids, of ILSVRC2012_val_00000001.JPEG and on."""
    with np.load(BUNDLED / "imagenet_val.npz") as arrays:
        return arrays["labels"]


def expected(part: str, _root: Path) -> list[str]:
    """The keys of the whole part; none where nobody has told."""
    wnids = list(titles())
    names = enumerate(published(), 1) if part == "eval" else ()
    return [f"val/{wnids[label]}/ILSVRC2012_val_{number:08d}.JPEG" for number, label in names]


def files(part: str, root: Path) -> image_tree.ImageTree:
    """The part as image files. DataMissing if they are not there, ConfigError if they are mixed."""
    base = next((p for p in (root, *map(root.joinpath, KAGGLE)) if _has_both(p)), None)
    if base is None:
        raise DataMissing(HELP.format(root=root, missing=_what_is_missing(root)))
    train = image_tree.below(base, "train")
    classes = _classes([path.split("/")[1] for path in train], base)
    if part == "train":
        _say_what_is_absent(classes, base / "train")
        return image_tree.make(base, ((path, path, path.split("/")[1]) for path in train), classes)
    found = _validation(root, base, classes)
    _check_labels(((Path(path).name, name) for path, name in found), base / "val")
    tree = image_tree.make(base, ((_val_key(p, name), p, name) for p, name in found), classes)
    image_tree.check_counts(tree.labels, classes, base / "val")
    return tree


def _validation(root: Path, base: Path, classes: Sequence[str]) -> list[tuple[str, str]]:
    """(path, wnid) of the images of val/, from their folders, a label file or their names."""
    paths, val = image_tree.below(base, "val"), base / "val"
    flat = [path for path in paths if path.count("/") == 1]
    if not flat:
        found = [(path, path.split("/")[1]) for path in paths]
        image_tree.check_strangers({name for _, name in found}, classes, val, base / "train")
        return found
    if len(flat) < len(paths):
        raise ConfigError(
            f"{val} holds images ({flat[0]}) beside folders of images "
            f"({next(path for path in paths if path.count('/') > 1)}): it must be one or the other."
        )
    class_of = _label_file(root, base) or _published_names(flat, base)
    if unlabelled := [path for path in paths if Path(path).stem not in class_of]:
        raise ConfigError(
            f"The label file of {base} does not tell the class of {len(unlabelled)} images of "
            f"val/, such as {unlabelled[0]}."
        )
    found = [(path, class_of[Path(path).stem]) for path in paths]
    known = [(path, name) for path, name in found if name in classes]
    if left := len(found) - len(known):
        log.info("%d images of %s are of classes that are not in train/", left, val)
    return known


def _val_key(path: str, wnid: str) -> str:
    return path if path.count("/") > 1 else f"val/{wnid}/{Path(path).name}"


def _has_both(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in FOLDERS.values())


def _what_is_missing(root: Path) -> str:
    missing = [f"{name}/" for name in FOLDERS.values() if not (root / name).is_dir()]
    said = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    tars = sorted(path.name for path in root.glob("*.tar"))
    said += f" ({', '.join(tars[:3])} must be unpacked)" if tars else ""
    return said + data_root.elsewhere(root, tuple(FOLDERS.values()))


def _classes(names: Iterable[str], base: Path) -> list[str]:
    """The wnids of the training images, sorted."""
    names, where = set(names), base / "train"
    if strangers := sorted(name for name in names if not re.fullmatch(r"n\d+", name)):
        nested = where / strangers[0]
        deeper = nested.is_dir() and any(re.fullmatch(r"n\d+", p.name) for p in nested.iterdir())
        raise ConfigError(
            f"{where} should hold folders such as n01440764 and nothing else, but it holds "
            f"{', '.join(strangers[:5])}. "
            + (
                f"Move what is in {nested} one level up."
                if deeper
                else "For images of one's own: --config.data.name=folder."
            )
        )
    if len(names) < 2:
        tars = len(list(where.glob("n*.tar")))
        said = f"{where} has images of {len(names)} of the 1,000 classes, at least two are needed"
        said += f"; its {tars} .tar files must be unpacked into folders of their names"
        raise DataMissing(HELP.format(root=base, missing=said if tars else said.split(";")[0]))
    return sorted(names)


def _say_what_is_absent(classes: Sequence[str], where: Path) -> None:
    if absent := [f"{wnid} ({name})" for wnid, name in titles().items() if wnid not in classes]:
        some = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        log.info("%s lacks %d of the 1,000 classes: %s", where, len(absent), some)


def _label_file(root: Path, base: Path) -> dict[str, str]:
    """{image without suffix: wnid} of a label file in the folders from base up to root, if any."""
    for folder in (base / "val", base, *(p for p in base.parents if p.is_relative_to(root))):
        for path in (folder / name for name in LABELS):
            if path.is_file():
                rows = (re.split(r"[,\s]+", line.strip()) for line in path.read_text().splitlines())
                rows = [row for row in rows if len(row) > 1 and row[0] != "ImageId"]
                if bad := [row for row in rows if not re.fullmatch(r"n\d+", row[1])]:
                    raise ConfigError(
                        f"{path} should tell the wnid of every image, such as "
                        f"'ILSVRC2012_val_00000001 n01751748'; it says {' '.join(bad[0][:3])!r}."
                    )
                return {Path(row[0]).stem: row[1] for row in rows}
    return {}


def _published_names(paths: Sequence[str], base: Path) -> dict[str, str]:
    """The same for images with their official names, which need no label file."""
    wnids, class_of = list(titles()), {}
    for path in paths:
        if not (number := _number(Path(path).name)):
            raise ConfigError(
                f"The images of {base / 'val'} are not in folders of their classes, and {path} is "
                "no name of ILSVRC such as ILSVRC2012_val_00000001.JPEG. Sort them into folders, "
                f"or say the classes in {base / LABELS[1]}, one line 'FILE WNID' for each."
            )
        class_of[Path(path).stem] = wnids[published()[number - 1]]
    return class_of


def _number(name: str) -> int:
    """1 to 50,000 for the official name of a validation image, else 0."""
    found = OFFICIAL.fullmatch(name)
    return int(found[1]) if found and int(found[1]) <= len(published()) else 0


def _check_labels(found: Iterable[tuple[str, str]], where: Path) -> None:
    """(file, wnid): ConfigError if ILSVRC says otherwise of a validation image."""
    wnids, known = list(titles()), titles()
    wrong = [
        (name, wnid, wnids[published()[number - 1]])
        for name, wnid in found
        if (number := _number(name)) and wnid in known and wnids[published()[number - 1]] != wnid
    ]
    if wrong:
        name, wnid, true = wrong[0]
        raise ConfigError(
            f"The labels of {where} are mixed up: {len(wrong):,} images are not of the class they "
            f"are filed under. {name} is filed under {wnid} ({known[wnid]}) and is {true} "
            f"({known[true]}). Sort val/ anew, or put all of its images into val/ itself: their "
            "classes are known by their names."
        )


def _from_records(folder: Path, part: str, base: Path) -> Source:
    """The classes are those with training images, as in folders."""
    train = found = reader.read(folder, SPLITS["train"], FIELDS, HELP, base)
    present = np.unique(train.labels)
    classes = tuple(train.classes[at] for at in present)
    if part == "eval":
        found = reader.read(folder, SPLITS[part], FIELDS, HELP, base)
        wnids = [found.classes[label] for label in found.labels]
        where = folder / SPLITS[part]
        image_tree.check_strangers(set(wnids), classes, where, folder / SPLITS["train"])
        _check_labels(zip(found.names, wnids, strict=True), where)
    named = zip(found.names, found.labels, strict=True)
    keys = [f"{FOLDERS[part]}/{found.classes[label]}/{name}" for name, label in named]
    labels = np.searchsorted(present, found.labels)
    human = tuple(titles().get(name, name) for name in classes)
    return reader.source(found, keys, labels, classes, titles=human)


def make_up(count: int, classes: Sequence[str]) -> Path:
    """The root of a tree with `count` made-up training images of each class, and some to test."""
    wnids = list(titles())
    names = tuple(classes) or tuple(wnids[:4])
    if strangers := [name for name in names if name not in titles()]:
        raise unknown("class", strangers[0], wnids[:5], "It is in data.args.synthetic_classes.")
    images = [(f"train/{w}/{w}_{i}.JPEG", at) for at, w in enumerate(names) for i in range(count)]
    for at, wnid in enumerate(names):
        numbers = np.flatnonzero(published() == wnids.index(wnid))[: synthetic.held_out(count)] + 1
        images += [(f"val/{wnid}/ILSVRC2012_val_{n:08d}.JPEG", at) for n in numbers]
    return synthetic.tree("imagenet", images, {})
