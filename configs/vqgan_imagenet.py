"""Train a VQ-GAN tokenizer on ImageNet, or make its convolutional encoder forget.

    python -m l2l_jax.main --config configs/vqgan_imagenet.py --workdir runs/tokenizer
    python -m l2l_jax.main --config configs/vqgan_imagenet.py:unlearn --workdir runs/vqgan
    python -m l2l_jax.main --config configs/vqgan_imagenet.py:smoke --workdir runs/smoke

The first makes a tokenizer for those who do not have the published one; with

    python -m l2l_jax.weights export runs/tokenizer weights/vqgan.safetensors

configs/mage_imagenet.py:pretrain trains a MAGE over it. The second does what paper A's text says
and its code does not: it trains the convolutional encoder with L2L, the codebook and the decoder
frozen. Forms, joined by commas:

    unlearn              L2L on the published tokenizer
    unlearn,max_loss ... another method on it, one of UNLEARNING in configs/common.py
    released, random     the split: the 100/100 classes of the released code, or 100/100 at random
    proxy                train on the 800 other classes in place of the retain classes
    smooth               no discriminator
    smoke                the same program in a minute on a CPU, on made-up images; its figures mean
                         nothing

Recipe. Training: the architecture of MaskGIT (1,024 codes of 256 channels, 16x16 tokens), mean
absolute error, codebook and commitment losses, a patch discriminator from the start with the
adaptive weight of Esser et al. times 0.8, Adam without decay, learning rate 1e-4, batch 256, crops
of 0.2 to 1 of the area, flips. No perceptual loss: it would need the weights of another network.
The length is ours, 300,000 steps. Unlearning: as configs/mage_imagenet.py, with holes of random
cells in training.

Needs: ImageNet-1K, all 1,000 classes for the first; for the second weights made by

    python -m l2l_jax.weights list
    python -m l2l_jax.weights import vqgan_jax_strongaug.ckpt \\
        weights/vqgan_jax_strongaug.safetensors --model vqgan

Measured: nothing yet; no machine with ImageNet was at hand when this was written.
"""

from configs import common

SPLITS = ("released", "random")
FORMS = ("unlearn", *SPLITS, "proxy", "smooth", "smoke", *common.UNLEARNING)


def get_config(form: str = "") -> common.Config:
    """form: any of FORMS, joined by commas."""
    words = common.parse_form(form, "configs/vqgan_imagenet.py", FORMS, SPLITS, common.UNLEARNING)
    if "unlearn" not in words and {*words} & {*common.UNLEARNING}:
        raise ValueError(
            "configs/vqgan_imagenet.py: methods go with unlearn, as in unlearn,max_loss."
        )
    config = common.base()
    adversarial = 0.0 if {"unlearn", "smooth"} & set(words) else 0.8
    config.model = dict(
        name="vqgan", args=dict(size="published", image_size=256, adversarial=adversarial)
    )
    common.use_imagenet(config, "random" in words, "proxy" in words)
    config.tasks = dict(
        nothing=dict(task="nothing", args=dict()),
        random=dict(task="random", args=dict(ratio=0.25)),
        center_8=dict(task="center", args=dict(cells=8)),
        center_4=dict(task="center", args=dict(cells=4)),
    )
    config.evaluate.tasks = ("center_8", "center_4")
    config.evaluate.batch_size = 64
    common.use_published_networks(config)
    pretraining = common.phase(
        "pretrain",
        steps=300_000,
        batch_size=256,
        tasks=("nothing",),
        on="all",
        optimizer=dict(lr=1e-4, weight_decay=0.0, clip=1.0),
    )
    if "unlearn" in words:
        config.weights = "weights/vqgan_jax_strongaug.safetensors"
        config.unlearn = common.released_l2l(("nothing", "random"), "proxy" in words)
        common.use_method(config, common.method_of_form(words))
    else:
        config.phases = ("pretrain",)
        config.pretrain = pretraining
        config.split.images_per_class = 0
        config.split.retain.update(dict(classes=(), random=0))  # all but those to be forgotten
    if "smoke" in words:
        common.use_synthetic_images(config, dict(size="test", image_size=64, multipliers=(1, 1, 1),
                                   adversarial=adversarial))  # fmt: skip
    return config
