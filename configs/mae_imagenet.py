"""Forget 100 ImageNet classes from a published masked autoencoder; keep 100 others.

    python -m l2l_jax.main --config configs/mae_imagenet.py --workdir runs/imagenet
    python -m l2l_jax.main --config configs/mae_imagenet.py:large,random --workdir runs/large
    python -m l2l_jax.main --config configs/mae_imagenet.py:smoke --workdir runs/smoke

Forms, joined by commas:

    base, large, huge    the published sizes (ViT-B/16, ViT-L/16, ViT-H/14); base if none is named
    released, random     the split: the 100/100 classes of the released code (animals against the
                         rest), or 100/100 drawn at random as the paper says; released by default
    proxy                train on the 800 other classes, 13 images of each, in place of the retain
                         classes, which are then only evaluated
    coco                 the same with 10,000 images of COCO
    max_loss, ...        another method than l2l, one of UNLEARNING in configs/common.py
    smoke                the same program in a minute on a CPU: made-up images in files of the true
                         form, a tiny model that is pretrained for a few steps first, networks that
                         nobody trained to judge it; its figures mean nothing

Recipe. Paper A names MAE but neither its settings nor its code were published, so this follows the
released VQ-GAN settings: AdamW (0.9, 0.95), weight decay 0.05, clipping at 3.0, batch 128 (64 of
each side), peak learning rate 1e-4 * 128 / 256, linear warm-up over five of six epochs and a cosine
to zero in the sixth, 1,122 steps (six epochs of the 24,000 images of the released lists), alpha
0.25, 100 images of each class as the paper says, random crops of 0.2 to 1 of the area, flips. Masks
hide a random 75 % in training; the centre 4x4 and 8x8 patches and all but the centre in evaluation,
on 50 validation images of each class.

Needs: ImageNet-1K (the run says where from; launch/prepare/imagenet.py checks it), weights made by

    curl -LO https://dl.fbaipublicfiles.com/mae/visualize/mae_visualize_vit_base.pth
    python -m l2l_jax.weights import mae_visualize_vit_base.pth \\
        weights/mae_visualize_vit_base.safetensors

and, for its figures, python launch/fetch_weights.py --feature-networks. Evaluation shows all models
the same central squares; the released code took whole images, squashed, as the reference of FID.

Measured: nothing yet; no machine with ImageNet was at hand when this was written.
"""

from configs import common

SIZES = ("base", "large", "huge")
SPLITS = ("released", "random")
PROXIES = ("proxy", "coco")
FORMS = (*SIZES, *SPLITS, *PROXIES, "smoke", *common.UNLEARNING)


def get_config(form: str = "") -> common.Config:
    """form: any of FORMS, joined by commas."""
    kinds = SIZES, SPLITS, PROXIES, common.UNLEARNING
    words = common.parse_form(form, "configs/mae_imagenet.py", FORMS, *kinds)
    proxy = bool({*PROXIES} & {*words})
    config = common.base()
    common.use_mae(config, next((word for word in words if word in SIZES), "base"), proxy)
    common.use_imagenet(config, "random" in words, "proxy" in words)
    if "coco" in words:
        common.use_coco_proxy(config, 10_000)
    common.use_published_networks(config)
    common.use_method(config, common.method_of_form(words))
    if "smoke" in words:
        common.use_synthetic_images(config, dict(size="test", image_size=64, patch=4))
    return config
