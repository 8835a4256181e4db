"""Forgets 100 ImageNet classes in a published masked autoencoder and keeps 100 others.

    python -m l2l_jax.main --config configs/mae_imagenet.py --workdir runs/imagenet
    python -m l2l_jax.main --config configs/mae_imagenet.py:large,random --workdir runs/large
    python -m l2l_jax.main --config configs/mae_imagenet.py:smoke --workdir runs/smoke

Form words, joined by commas:

    base, large, huge    the published sizes (ViT-B/16, ViT-L/16, ViT-H/14); default: base
    released, random     the split: the 100/100 classes of the released code (forgets animals), or
                         100/100 classes drawn at random as in the paper; default: released
    proxy                train on a proxy instead of the retain classes: 13 images of each of the
                         800 other classes. The retain classes are then only evaluated
    coco                 as proxy, with 10,000 COCO images; all random crops then cover 0.2 to 0.5
                         of the area, as in the released VQ-GAN code
    max_loss, ...        another method than l2l: one of UNLEARNING in configs/common.py
    undo                 after the method perturb the model and distill it on the retain images;
                         see rebuild in configs/common.py. Its settings are not measured here
    resist               as undo, and bounds what a simulated attack brings back
    smoke                the same code in a minute on a CPU, for tests: synthetic images in files of
                         the real format, a tiny model that is pretrained for a few steps, untrained
                         feature networks; the figures mean nothing

Recipe. Paper A reports results for MAE, but its settings and code for MAE are not published. This
config uses the settings of the released VQ-GAN code:

    optimizer   AdamW (0.9, 0.95), weight decay 0.05, gradient clipping at norm 3.0
    batch       128 images, 64 of each side
    rate        peak 1e-4 * 128 / 256; linear warm-up in five of six epochs, then a cosine to zero
    steps       1,122: six epochs of the 24,000 images in the released lists, 7.18 of the 20,000
                images here
    alpha       0.25
    images      100 of each class as in the paper; random crops of 0.2 to 1 of the area, flips
    masks       training: a random 75 % of the patches. Evaluation: the centre 4x4 or 8x8 patches
                are hidden, or all but the centre 8x8; 50 validation images of each class. No phase
                trains on the masks of the evaluation (the demo does)
    baselines   the same batch and rate, so that methods compare; the released baselines of the
                VQ-GAN code had batches of 64 and a rate of 2.5e-5

Needs: ImageNet-1K (an error message says where to get it; launch/prepare/imagenet.py checks it),
and weights made by

    curl -LO https://dl.fbaipublicfiles.com/mae/visualize/mae_visualize_vit_base.pth
    python -m l2l_jax.weights import mae_visualize_vit_base.pth \\
        weights/mae_visualize_vit_base.safetensors

and feature networks for the figures: python -m l2l_jax.weights.fetch --feature-networks. All models
see the same central square of each image. The released code computes FID against whole images
squeezed to a square.

Measured: nothing yet, because no machine had ImageNet.
"""

from configs import common

SIZES = ("base", "large", "huge")
SPLITS = ("released", "random")
PROXIES = ("proxy", "coco")
FORMS = (*SIZES, *SPLITS, *PROXIES, "smoke", *common.REBUILDS, *common.UNLEARNING)


def get_config(form: str = "") -> common.Config:
    """Returns the config. form: words of FORMS, joined by commas."""
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
    common.rebuild(config, words)
    if "smoke" in words:
        common.use_synthetic_images(config, dict(size="test", image_size=64, patch=4))
    return config
