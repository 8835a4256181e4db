"""Forgets 100 ImageNet classes in MAGE, a masked token model with a VQ-GAN; keeps 100 others.

    python -m l2l_jax.main --config configs/mage_imagenet.py --workdir runs/mage
    python -m l2l_jax.main --config configs/mage_imagenet.py:large,random --workdir runs/large
    python -m l2l_jax.main --config configs/mage_imagenet.py:smoke --workdir runs/smoke

Paper A and its released code call this experiment VQ-GAN. Form words, joined by commas:

    base, large          the published sizes (ViT-B, ViT-L); default: base
    released, random     the split: the 100/100 classes of the released code (forgets animals), or
                         100/100 classes drawn at random as in the paper; default: released
    proxy                train on a proxy instead of the retain classes: 13 images of each of the
                         800 other classes. The retain classes are then only evaluated
    coco                 as proxy, with 10,000 COCO images; all random crops then cover 0.2 to 0.5
                         of the area, as in the released code
    max_loss, ...        another method than l2l: one of UNLEARNING in configs/common.py
    undo                 after the method perturb the model and distill it on the retain images;
                         see rebuild in configs/common.py. Its settings are not measured here
    resist               as undo, and bounds what a simulated attack brings back
    pretrain             train the original from scratch on all images, with your own tokenizer
                         (made by configs/vqgan_imagenet.py; pass it as --config.weights)
    tied                 tying="tied", as in the released code: the decoder shares the token
                         embedding of the encoder, so it changes when the encoder is trained
    online               tokenise new random crops in every step, as in the released code. Default:
                         tokenise four views of each image before training, which halves the work of
                         tokenising in a first run and avoids it in later runs on the same images
    sweep                also evaluate out-painting of 1/16 to 13/16 and of the four sides
    smoke                the same code in a minute on a CPU, for tests: synthetic images in files of
                         the real format, a tiny model that is pretrained for a few steps, untrained
                         feature networks; the figures mean nothing

Recipe, from the released code:

    optimizer   AdamW (0.9, 0.95), weight decay 0.05, gradient clipping at norm 3.0
    batch       128 images, 64 of each side
    rate        peak 1e-4 * 128 / 256; linear warm-up in five of six epochs, then a cosine to zero
    steps       1,122: six epochs of the released 24,000 images, 7.18 of the 20,000 images here
    alpha       0.25
    images      random crops of 0.2 to 1 of the area, flips
    masks       half of the tokens are dropped; a random share of 0.5 to 1 is masked, drawn once for
                each side of a batch (released: once for both sides together)
    baselines   the same batch and rate, so that methods compare. The released baselines had batches
                of 64 and a rate of 2.5e-5: --config.unlearn.batch_size=32
                --config.unlearn.optimizer.lr=2.5e-5

Departures from the released code: 100 images of each class, as in the paper; noise is not clamped
and has the mean and deviation of the forget images alone; no dropout; a batch has equally many
retain and forget images, kept apart; four fixed views of each image instead of new crops; a
completion changes only the hidden pixels (--config.model.args.composite=blurred blends its edge as
in the released code).

Evaluation: the centre 8/16 or 4/16 is hidden (100 or 36 tokens with the margin), or all but the
centre 8/16 (220 tokens); 50 validation images of each class; 20 decoding steps. Out-painting of
r/16 hides a border of r * 8 pixels on each side. The margin is that of the released code
(margin="released" of the tasks): where the border ends inside a token, it is one-sided, so that
13/16 leaves one visible token. The symmetric margin would leave none there.

Needs: ImageNet-1K (an error message says where to get it; launch/prepare/imagenet.py checks it),
and weights made by

    python -m l2l_jax.weights list
    python -m l2l_jax.weights import mage-vitb-1600.pth weights/mage-vitb-1600.safetensors \\
        --model mage

and feature networks for the figures: python -m l2l_jax.weights.fetch --feature-networks.

Measured: nothing yet, because no machine had ImageNet.
"""

from configs import common

SIZES = ("base", "large")
SPLITS = ("released", "random")
PROXIES = ("proxy", "coco")
OTHERS = ("pretrain", "tied", "online", "sweep", "smoke")
FORMS = (*SIZES, *SPLITS, *PROXIES, *OTHERS, *common.REBUILDS, *common.UNLEARNING)


def get_config(form: str = "") -> common.Config:
    """Returns the config. form: words of FORMS, joined by commas."""
    kinds = SIZES, SPLITS, PROXIES, ("pretrain", *common.UNLEARNING)
    words = common.parse_form(form, "configs/mage_imagenet.py", FORMS, *kinds)
    size = "large" if "large" in words else "base"
    config = common.base()
    config.model = common.section(name="mage", args=dict(size=size, image_size=256))
    tied = {"tied", "pretrain"} & set(words)  # the published weights are tied
    config.model.args.tying = "tied" if tied else "frozen"
    config.weights = f"weights/mage-vit{size[0]}-1600.safetensors"
    common.use_imagenet(config, "random" in words, "proxy" in words)
    if "coco" in words:
        common.use_coco_proxy(config, 10_000)
    config.data.token_cache.views = 0 if "online" in words else 4

    config.tasks = dict(
        random_ratio=dict(task="random_ratio", args=dict()),
        center_8=dict(task="center", args=dict(cells=8, margin="released")),
        center_4=dict(task="center", args=dict(cells=4, margin="released")),
        outpaint_8=dict(task="outpaint", args=dict(cells=8, margin="released")),
    )
    config.evaluate.tasks = ("center_8", "center_4", "outpaint_8")
    if "sweep" in words:
        add_outpainting_tasks(config)
    config.unlearn = common.released_l2l(("random_ratio",), bool({*PROXIES} & {*words}))
    config.evaluate.batch_size = 64
    common.use_published_networks(config)
    if "pretrain" in words:
        use_pretraining(config)
    else:
        common.use_method(config, common.method_of_form(words))
    common.rebuild(config, words)
    if "smoke" in words:
        tokenizer = dict(size="test", multipliers=(1, 1, 1))
        model_args = dict(size="test", image_size=64, steps=4, tokenizer=tokenizer)
        model_args |= dict(tying=config.model.args.tying)
        common.use_synthetic_images(config, model_args)
        config.data.token_cache.update(dict(views=min(2, config.data.token_cache.views), noise=32))
    return config


def use_pretraining(config: common.Config) -> None:
    """MAGE's published pretraining, with new crops in every step; the steps of 1,600 epochs."""
    config.weights = "weights/vqgan.safetensors"
    config.phases = ("pretrain",)
    config.split.images_per_class = 0
    config.split.retain.update(dict(classes=(), random=0))  # all classes but the forget classes
    config.data.token_cache.views = 0
    config.pretrain = common.phase(
        "pretrain",
        steps=500_000,
        batch_size=4096,
        tasks=("random_ratio",),
        on="all",
        optimizer=dict(lr=2.4e-3, warmup=0.025, weight_decay=0.05, clip=3.0),
    )


def add_outpainting_tasks(config: common.Config) -> None:
    """Evaluates borders of 8 to 104 pixels in steps of 8, and the four sides at 8/16.

    A border of an odd r ends inside a token (16 pixels), so the mask has cells of half that size.
    """
    for r in range(1, 14):
        if r != 8:
            args = dict(cells=32 - 2 * r, finer=2, margin="released")
            config.tasks[f"outpaint_{r}"] = dict(task="outpaint", args=args)
    for edge in ("left", "right", "up", "down"):
        config.tasks[f"{edge}_8"] = dict(task="side", args=dict(cells=8, edge=edge))
    config.evaluate.tasks = tuple(name for name in config.tasks if name != "random_ratio")
