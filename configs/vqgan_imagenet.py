"""Trains a VQ-GAN tokenizer on ImageNet, or makes its convolutional encoder forget classes.

    python -m l2l_jax.main --config configs/vqgan_imagenet.py --workdir runs/tokenizer
    python -m l2l_jax.main --config configs/vqgan_imagenet.py:unlearn --workdir runs/vqgan
    python -m l2l_jax.main --config configs/vqgan_imagenet.py:smoke --workdir runs/smoke

The first command trains a tokenizer, for users without the published one. After

    python -m l2l_jax.weights export runs/tokenizer weights/vqgan.safetensors

configs/mage_imagenet.py:pretrain can train a MAGE on its tokens. The second command does what the
text of paper A says and its code does not: L2L trains the convolutional encoder, while codebook and
decoder stay frozen. Form words, joined by commas:

    unlearn              L2L on the published tokenizer
    unlearn,max_loss ... another method on it: one of UNLEARNING in configs/common.py
    unlearn,undo         after the method perturb the model and distill it on the retain images;
                         see rebuild in configs/common.py. Its settings are not measured here
    unlearn,resist       as undo, and bounds what a simulated attack brings back
    released, random     the split: the 100/100 classes of the released code, or 100/100 at random
    proxy                train on the 800 other classes instead of the retain classes
    smooth               train without the discriminator
    smoke                the same code in a minute on a CPU with synthetic images, for tests; the
                         figures mean nothing

Recipe for training: the architecture of MaskGIT (1,024 codes of 256 channels, 16x16 tokens); mean
absolute error, codebook and commitment losses; a patch discriminator from the first step, with the
adaptive weight of Esser et al. times 0.8; Adam without weight decay, learning rate 1e-4, batch 256,
crops of 0.2 to 1 of the area, flips. There is no perceptual loss, because it needs the weights of
another network. The number of steps, 300,000, is our choice.

Recipe for unlearning: as in configs/mage_imagenet.py; training hides random cells.

Needs: ImageNet-1K, for training with all 1,000 classes; for unlearning also weights made by

    python -m l2l_jax.weights list
    python -m l2l_jax.weights import vqgan_jax_strongaug.ckpt \\
        weights/vqgan_jax_strongaug.safetensors --model vqgan

Measured: nothing yet, because no machine had ImageNet.
"""

from configs import common

SPLITS = ("released", "random")
FORMS = ("unlearn", *SPLITS, "proxy", "smooth", "smoke", *common.REBUILDS, *common.UNLEARNING)


def get_config(form: str = "") -> common.Config:
    """Returns the config. form: words of FORMS, joined by commas."""
    words = common.parse_form(form, "configs/vqgan_imagenet.py", FORMS, SPLITS, common.UNLEARNING)
    if "unlearn" not in words and {*words} & {*common.REBUILDS, *common.UNLEARNING}:
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
        common.rebuild(config, words)
    else:
        config.phases = ("pretrain",)
        config.pretrain = pretraining
        config.split.images_per_class = 0
        config.split.retain.update(dict(classes=(), random=0))  # all classes but the forget classes
    if "smoke" in words:
        common.use_synthetic_images(config, dict(size="test", image_size=64, multipliers=(1, 1, 1),
                                   adversarial=adversarial))  # fmt: skip
    return config
