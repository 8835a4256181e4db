"""Any directory of images, with one class for every sub-folder.

    root/cats/001.jpg root/dogs/7.png ...                a fraction of every class is held out
    root/train/cats/... root/val/cats/...                with train="train", eval="val"

JPEG, PNG, WebP, GIF, BMP and TIFF in any colour mode (data/images.py). Keys are paths below root.
"""

import hashlib
import os
from pathlib import Path

from l2l_jax.data import image_folder
from l2l_jax.lib.errors import ConfigError
from l2l_jax.types import Bounds, Source

BOUNDS = {"eval_fraction": Bounds(0, 1, open_low=True, open_high=True)}
# No EXAMPLE: nothing can be read without files of the user.


def load(
    part: str, *, root: str = "", train: str = "", eval: str = "", eval_fraction: float = 0.1
) -> Source:
    """The part as a Source. DataMissing if root holds no images, ConfigError for wrong arguments.

    train, eval: sub-folders of root with the two parts. Without them eval_fraction of every class
    is held out. The held-out images have the smallest hashes of their keys, so that new images in
    the folder change the part of few others.
    """
    if not root:
        raise ConfigError("data.args.root is empty; use --config.data.args.root=FOLDER.")
    if bool(train) != bool(eval):
        raise ConfigError("data.args.train and data.args.eval go together: name both, or neither.")
    base = Path(os.path.expandvars(root)).expanduser()
    if train:
        return image_folder.source_of_part(base, train, eval, part)
    if not 0 < eval_fraction < 1:
        raise ConfigError(f"data.args.eval_fraction is between 0 and 1, not {eval_fraction}.")
    all_keys = image_folder.keys_by_class(base)
    chosen = {name: _hold_out(keys, eval_fraction)[part] for name, keys in all_keys.items()}
    return image_folder.source(base, chosen, list(all_keys), f"the {part} part of {base}")


def _hold_out(keys: list[str], fraction: float) -> dict[str, list[str]]:
    """{part: keys}; "eval" gets the fraction of the keys that has the smallest hashes."""
    by_hash = sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())
    count = round(len(keys) * fraction)
    return {"eval": by_hash[:count], "train": by_hash[count:]}
