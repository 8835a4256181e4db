"""Removes every copy that this project made of the images that a run was made to forget.

    what                                  how it is found
    decoded images in the cache           by the stamp of the image
    completions and features in the cache by its pixels in the files of all runs, and by the
                                          splits of this run that hold it
    tokens in the cache                   by these splits
    pictures and pages of the workdir     those of the forget side
    checkpoints, with `checkpoints`       of the phases that trained the original on it

The images themselves must still be there: their pixels and stamps are what is looked for. So a
purge comes before their deletion. It can be repeated.
"""

import contextlib
import dataclasses
import hashlib
import logging
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from l2l_jax.data import image_cache
from l2l_jax.data.duplicates import FORGET
from l2l_jax.data.images import resize_crop
from l2l_jax.data.splits import Split
from l2l_jax.engine.completions import SPLIT
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.lib import config_dicts, files, preemption
from l2l_jax.lib.errors import BrokenImage, ConfigError
from l2l_jax.record.write import write_with_page
from l2l_jax.workdir import claim
from l2l_jax.workdir.layout import Workdir

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Purged:
    """What a purge removed, or would remove, and what it cannot reach."""

    removed: list[Path]
    beyond: list[str]  # sentences


def purge(folder: Path, dry_run: bool = False, checkpoints: bool = False) -> Purged:
    """Removes the copies; see above. dry_run: only finds them.

    checkpoints: also those of phases that were trained on all images, such as the original's; the
    run cannot be evaluated again then. ConfigError if a process works in the workdir, or the run
    forgets nothing.
    """
    workdir = Workdir(folder)
    config = workdir.read_config()
    config["data"]["cache"] = ""  # reading the images must not store them again
    plan = resolve(config)
    with preemption.watch_signals("what is removed stays removed") as stop, claim.lock(folder):
        experiment = preflight(plan, folder, stop)
        splits = [experiment.splits[name] for name in FORGET if name in experiment.splits]
        if not splits:
            raise ConfigError(f"{folder} forgets nothing: there is nothing to purge.")
        found = list(_found(experiment, splits))
        if checkpoints:
            found += list(_trained(experiment))
        if not dry_run:
            for path in found:
                _remove(path)
            if workdir.report in found:
                _write_page(workdir)
    return Purged(found, list(_beyond(experiment, checkpoints)))


def _found(experiment: Experiment, splits: list[Split]) -> Iterator[Path]:
    """The files and folders that hold an image of the splits."""
    pixels, cache = set(), files.cache_dir()
    size = experiment.model.image_size
    for split in splits:
        source = experiment.sources[split.part]
        for row in split.indices.tolist():
            if source.stamp:
                path = image_cache.path_of(cache / "images", source.stamp(row))
                if path.is_file():
                    yield path
            with contextlib.suppress(BrokenImage):
                pixels.add(_digest(resize_crop(source.read(row), size)))
    names = {key for split in splits for key in split.keys}
    known = {x.digest for x in experiment.splits.values() if not names.isdisjoint(x.keys)}
    for path in sorted((cache / "completions").glob("*.npz")):
        if _holds(path, pixels, known):
            yield path
    yield from _tokens(experiment, known)
    yield from _shown(experiment.workdir)


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()


def _holds(path: Path, pixels: set[bytes], splits: set[str]) -> bool:
    """Whether a file of completions is of one of the images. True if it cannot be read."""
    try:
        with np.load(path) as arrays:
            images = arrays.get("images", ())
            if SPLIT in arrays and str(arrays[SPLIT]) in splits:
                return True
    except (OSError, ValueError, zipfile.BadZipFile):
        return True
    return any(_digest(image) in pixels for image in images)


def _tokens(experiment: Experiment, splits: set[str]) -> Iterator[Path]:
    """The folders of tokens of the splits with these digests."""
    chosen = experiment.config["runtime"]["token_folder"]
    roots = [Path(chosen).expanduser()] if chosen else sorted(files.cache_dir().glob("tokens-*"))
    for digest in sorted(splits):
        folders = (root / digest[:16] for root in roots)
        yield from (folder for folder in folders if folder.is_dir())


def _shown(workdir: Workdir) -> Iterator[Path]:
    """Pictures of the forget side, and the page that shows them."""
    pictures = sorted(workdir.images.glob("*forget*.png"))
    yield from pictures
    withheld = config_dicts.withholds_forgotten(workdir.read_config())
    if workdir.report.is_file() and (pictures or not withheld):
        yield workdir.report


def _write_page(workdir: Workdir) -> None:
    """Makes the page and the record again, without the pictures that are gone."""
    results = workdir.read_results()
    known = results["digests"]["pictures"]
    kept = {name: digest for name, digest in known.items() if workdir.picture(name).is_file()}
    results["digests"]["pictures"] = kept
    results["examples"] = {k: v for k, v in results["examples"].items() if "forget" not in k}
    workdir.write_results(results)
    write_with_page(workdir.folder)


def _trained(experiment: Experiment) -> Iterator[Path]:
    """The checkpoints of the phases that were trained on all images."""
    for name, phase in experiment.plan.phases.items():
        folder = experiment.workdir.checkpoints(name)
        if phase.on == "all":
            paths = folder, experiment.workdir.sums(name)
            yield from (path for path in paths if path.exists())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    log.info("removed %s", path)


def _beyond(experiment: Experiment, checkpoints: bool) -> Iterator[str]:
    """What is left, and who must see to it."""
    config = experiment.config
    root = config["data"]["args"].get("root") or f"the data set {config['data']['name']}"
    yield f"the images themselves, in {root}, and copies that you made"
    if config["weights"]:
        yield f"the original model, {config['weights']}, if it was trained on the images"
    if not checkpoints:
        trained = [path.name for path in _trained(experiment) if path.is_dir()]
        if trained:
            yield (
                f"the checkpoints of the phases {', '.join(trained)}, which were trained on the "
                "images (--checkpoints removes them)"
            )
    yield "tokens, pages and checkpoints of other runs on the same images: purge these runs too"
    yield "the names of the images, in the folder splits and in answers.csv and answers.json"
    yield "backups, and other machines that have a cache"
