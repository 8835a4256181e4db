"""Forget 50 scenes of Places365 from a masked autoencoder; keep 50 others.

    python -m l2l_jax.main --config configs/mae_places365.py --workdir runs/places
    python -m l2l_jax.main --config configs/mae_places365.py:random,proxy --workdir runs/proxy
    python -m l2l_jax.main --config configs/mae_places365.py:smoke --workdir runs/smoke

Forms, joined by commas:

    base, large, huge    the published sizes (ViT-B/16, ViT-L/16, ViT-H/14); base if none is named
    released, random     the split: the 50/50 classes of the released code (rooms against scenes
                         outdoors), or 50/50 drawn at random; released by default
    proxy                train on the 265 other classes, 200 images of each, in place of the retain
                         classes, which are then only evaluated
    coco                 the same with 10,000 images of COCO
    max_loss, ...        another method than l2l, one of UNLEARNING in configs/common.py
    smoke                the same program in a minute on a CPU: made-up images in files of the true
                         form, a tiny model that is pretrained for a few steps first, networks that
                         nobody trained to judge it; its figures mean nothing

Recipe. The papers unlearn a diffusion model on Places365 (its data here: 5,000 images of each class
at most, 100 validation images of each to evaluate) and an MAE on ImageNet (its settings here, see
configs/mae_imagenet.py); the MAE on Places365 is ours. The published weights were trained on
ImageNet: they complete scenes, too, and no class of Places365 was ever named to them.

Needs: Places365 (the run says where from; launch/prepare/places365.py checks it), weights made by

    curl -LO https://dl.fbaipublicfiles.com/mae/visualize/mae_visualize_vit_base.pth
    python -m l2l_jax.weights import mae_visualize_vit_base.pth \\
        weights/mae_visualize_vit_base.safetensors

and, for its figures, python launch/fetch_weights.py --feature-networks.

Measured: nothing yet; no machine with Places365 was at hand when this was written.
"""

from configs import common

SIZES = ("base", "large", "huge")
SPLITS = ("released", "random")
PROXIES = ("proxy", "coco")
FORMS = (*SIZES, *SPLITS, *PROXIES, "smoke", *common.UNLEARNING)


def get_config(form: str = "") -> common.Config:
    """form: any of FORMS, joined by commas."""
    kinds = SIZES, SPLITS, PROXIES, common.UNLEARNING
    words = common.parse_form(form, "configs/mae_places365.py", FORMS, *kinds)
    proxy = bool({*PROXIES} & {*words})
    config = common.base()
    common.use_mae(config, next((word for word in words if word in SIZES), "base"), proxy)
    common.use_places365(config, "random" in words, "proxy" in words)
    if "coco" in words:
        common.use_coco_proxy(config, 10_000)
    common.use_published_networks(config, scenes=True)
    common.use_method(config, common.method_of_form(words))
    if "smoke" in words:
        common.use_synthetic_images(config, dict(size="test", image_size=64, patch=4))
    return config
