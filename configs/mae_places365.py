"""Forgets 50 scenes of Places365 in a published masked autoencoder and keeps 50 others.

    python -m l2l_jax.main --config configs/mae_places365.py --workdir runs/places
    python -m l2l_jax.main --config configs/mae_places365.py:random,proxy --workdir runs/proxy
    python -m l2l_jax.main --config configs/mae_places365.py:smoke --workdir runs/smoke

Form words, joined by commas:

    base, large, huge    the published sizes (ViT-B/16, ViT-L/16, ViT-H/14); default: base
    released, random     the split: the 50/50 classes of the released code (forgets rooms, keeps
                         outdoor scenes), or 50/50 classes drawn at random; default: released
    proxy                train on a proxy instead of the retain classes: 200 images of each of the
                         265 other classes. The retain classes are then only evaluated
    coco                 as proxy, with 10,000 COCO images; all random crops then cover 0.2 to 0.5
                         of the area, as in the released VQ-GAN code
    max_loss, ...        another method than l2l: one of UNLEARNING in configs/common.py
    undo                 after the method perturb the model and distill it on the retain images;
                         see rebuild in configs/common.py. Its settings are not measured here
    resist               as undo, and bounds what a simulated attack brings back
    smoke                the same code in a minute on a CPU, for tests: synthetic images in files of
                         the real format, a tiny model that is pretrained for a few steps, untrained
                         feature networks; the figures mean nothing

Recipe. This combination is ours: the papers use Places365 with a diffusion model and MAE with
ImageNet. The data are those of the papers: at most 5,000 training images of each class, 100
validation images of each class (paper C evaluates 500 of each class). The training settings are
those of configs/mae_imagenet.py. The published weights were trained on ImageNet without labels;
they also complete scenes.

Needs: Places365 (an error message says where to get it; launch/prepare/places365.py checks it),
and weights made by

    curl -LO https://dl.fbaipublicfiles.com/mae/visualize/mae_visualize_vit_base.pth
    python -m l2l_jax.weights import mae_visualize_vit_base.pth \\
        weights/mae_visualize_vit_base.safetensors

and feature networks for the figures: python -m l2l_jax.weights.fetch --feature-networks.

Measured: nothing yet, because no machine had Places365.
"""

from configs import common

SIZES = ("base", "large", "huge")
SPLITS = ("released", "random")
PROXIES = ("proxy", "coco")
FORMS = (*SIZES, *SPLITS, *PROXIES, "smoke", *common.REBUILDS, *common.UNLEARNING)


def get_config(form: str = "") -> common.Config:
    """Returns the config. form: words of FORMS, joined by commas."""
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
    common.rebuild(config, words)
    if "smoke" in words:
        common.use_synthetic_images(config, dict(size="test", image_size=64, patch=4))
    return config
