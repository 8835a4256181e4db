"""Any directory of images, one class for every sub-folder.

    root/cats/001.jpg root/dogs/7.png ...                split by fraction
    root/train/cats/... root/val/cats/...                split by folder, train="train", eval="val"

JPEG, PNG, WebP, GIF, BMP and TIFF in any colour mode (data/images.py). Keys are paths below root.
"""

import hashlib
import os
from pathlib import Path

from l2l_jax.data import image_folder
from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Source


def load(
    part: str, *, root: str = "", train: str = "", eval: str = "", eval_fraction: float = 0.1
) -> Source:
    """train and eval name sub-folders of root; without them a fraction of every class is held out.

    Which images are held out depends on their keys alone, so adding images moves few of the others.
    """
    if not root:
        raise ConfigError("data.args.root is empty; say --config.data.args.root=FOLDER.")
    if bool(train) != bool(eval):
        raise ConfigError("data.args.train and data.args.eval go together: name both, or neither.")
    base = Path(os.path.expandvars(root)).expanduser()
    if train:
        return image_folder.by_folder(base, train, eval, part)
    if not 0 < eval_fraction < 1:
        raise ConfigError(f"data.args.eval_fraction is between 0 and 1, not {eval_fraction}.")
    found = image_folder.images_by_class(base)
    chosen = {name: _hold_out(keys, eval_fraction)[part] for name, keys in found.items()}
    return image_folder.source(base, chosen, list(found), f"the {part} part of {base}")


def _hold_out(keys: list[str], fraction: float) -> dict[str, list[str]]:
    """The share of the keys with the smallest hashes is held out."""
    mixed = sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())
    held = round(len(keys) * fraction)
    return {"eval": mixed[:held], "train": mixed[held:]}
