"""ImageNet-1K (ILSVRC 2012) from the plain directory: train/<wnid>/*.JPEG and val/<wnid>/*.JPEG."""

import os
from pathlib import Path

from l2l_jax.lib import imagefolder
from l2l_jax.lib.errors import DataMissing
from l2l_jax.types import Source

HELP = """\
ImageNet-1K is not in {root}: {missing} missing.
It is free for research at https://image-net.org/download.php after registration; get
ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar and unpack them into one folder per class:
  {root}/train/n01440764/*.JPEG   (1,000 folders)
  {root}/val/n01440764/*.JPEG     (the same 1,000 folders)
If it lies elsewhere, say so: export L2L_DATA=FOLDER_OF_imagenet, or --config.data.args.root=FOLDER.
Then run the same command again. To see the run without ImageNet, use made-up images:
  python -m l2l_jax.main --config configs/mae_imagenet.py:smoke --workdir runs/smoke"""


def load(part: str, *, root: str = "") -> Source:
    """root defaults to $L2L_DATA/imagenet; classes are wnids, the validation part is "eval"."""
    base = Path(root or Path(os.environ.get("L2L_DATA", "~/data")) / "imagenet").expanduser()
    missing = [f"{name}/" for name in ("train", "val") if not (base / name).is_dir()]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise DataMissing(HELP.format(root=base, missing=f"{' and '.join(missing)} {verb}"))
    return imagefolder.by_folder(base, "train", "val", part)
