"""Forget 100 ImageNet classes from MAGE, the masked-token model over a VQ-GAN; keep 100 others.

    python -m l2l_jax.main --config configs/mage_imagenet.py --workdir runs/mage
    python -m l2l_jax.main --config configs/mage_imagenet.py:large,random --workdir runs/large
    python -m l2l_jax.main --config configs/mage_imagenet.py:smoke --workdir runs/smoke

This is the experiment that paper A and its released code call VQ-GAN. Forms, joined by commas:

    base, large          the published sizes (ViT-B, ViT-L); base if none is named
    released, random     the split: the 100/100 classes of the released code (animals against the
                         rest), or 100/100 drawn at random as the paper says; released by default
    proxy                train on the 800 other classes, 13 images of each, in place of the retain
                         classes, which are then only evaluated
    coco                 the same with 10,000 images of COCO
    max_loss, ...        another method than l2l, one of UNLEARNING in configs/common.py
    pretrain             make the original over a tokenizer of one's own (configs/vqgan_imagenet.py
                         makes one) on all the images, from scratch; give it as --config.weights
    tied                 logits tied to the encoder's words, as in the released code: the decoder
                         then moves with the encoder
    online               tokenise fresh crops in every step, as in the released code, and not four
                         views of each image beforehand: half the work of tokenising even in the
                         first run, none in later ones on the same images
    sweep                out-painting of 1/16 to 13/16 and the four sides too, in evaluation
    smoke                the same program in a minute on a CPU: made-up images in files of the true
                         form, a tiny model that is pretrained for a few steps first, networks that
                         nobody trained to judge it; its figures mean nothing

Recipe, from the released code: AdamW (0.9, 0.95), weight decay 0.05, clipping at 3.0, batch 128 (64
of each side), peak learning rate 1e-4 * 128 / 256, linear warm-up over five of six epochs and a
cosine to zero in the sixth, 1,122 steps, alpha 0.25, random crops of 0.2 to 1 of the area, flips,
half of the tokens dropped, a share of 0.5 to 1 masked. Departures: 100 images of each class, as the
paper says; noise that is not clamped and has the moments of the forget images alone; no dropout;
retain and forget images in equal numbers by two typed halves of a batch; four fixed views of each
image in place of fresh crops; completions are pasted into the hole and nowhere else
(--config.model.args.composite=blurred blends them over a soft edge as the released code does).

Evaluation: the centre 8/16 and 4/16 hidden (100 and 36 tokens with the margin) and all but the
centre 8/16 (220), on 50 validation images of each class, 20 steps of decoding. "r/16" of
out-painting hides a border of r * 8 pixels on each side; of 13/16 the margin leaves no token.

Needs: ImageNet-1K (the run says where from; launch/prepare/imagenet.py checks it), weights made by

    python -m l2l_jax.weights list
    python -m l2l_jax.weights import mage-vitb-1600.pth weights/mage-vitb-1600.safetensors \\
        --model mage

and, for its figures, python launch/fetch_weights.py --feature-networks.

Measured: nothing yet; no machine with ImageNet was at hand when this was written.
"""

from configs import common

SIZES = ("base", "large")
SPLITS = ("released", "random")
PROXIES = ("proxy", "coco")
OTHERS = ("pretrain", "tied", "online", "sweep", "smoke")
FORMS = (*SIZES, *SPLITS, *PROXIES, *OTHERS, *common.UNLEARNING)


def get_config(form: str = "") -> common.Config:
    """form: any of FORMS, joined by commas."""
    kinds = SIZES, SPLITS, PROXIES, ("pretrain", *common.UNLEARNING)
    words = common.parse_form(form, "configs/mage_imagenet.py", FORMS, *kinds)
    size = "large" if "large" in words else "base"
    config = common.base()
    config.model = common.section(name="mage", args=dict(size=size, image_size=256))
    tied = {"tied", "pretrain"} & set(words)  # as the published weights were trained
    config.model.args.tying = "tied" if tied else "frozen"
    config.weights = f"weights/mage-vit{size[0]}-1600.safetensors"
    common.use_imagenet(config, "random" in words, "proxy" in words)
    if "coco" in words:
        common.use_coco_proxy(config, 10_000)
    config.data.token_cache.views = 0 if "online" in words else 4

    config.tasks = dict(
        random_ratio=dict(task="random_ratio", args=dict()),
        center_8=dict(task="center", args=dict(cells=8)),
        center_4=dict(task="center", args=dict(cells=4)),
        outpaint_8=dict(task="outpaint", args=dict(cells=8)),
    )
    config.evaluate.tasks = ("center_8", "center_4", "outpaint_8")
    if "sweep" in words:
        sweep(config)
    config.unlearn = common.released_l2l(("random_ratio",), bool({*PROXIES} & {*words}))
    config.evaluate.batch_size = 64
    common.use_published_networks(config)
    if "pretrain" in words:
        pretrain(config)
    else:
        common.use_method(config, common.method_of_form(words))
    if "smoke" in words:
        tokenizer = dict(size="test", multipliers=(1, 1, 1))
        tiny = dict(size="test", image_size=64, steps=4, tokenizer=tokenizer)
        tiny |= dict(tying=config.model.args.tying)
        common.use_synthetic_images(config, tiny)
        config.data.token_cache.update(dict(views=min(2, config.data.token_cache.views), noise=32))
    return config


def pretrain(config: common.Config) -> None:
    """MAGE's own recipe, with fresh crops; the number of steps is that of 1,600 epochs."""
    config.weights = "weights/vqgan.safetensors"
    config.phases = ("pretrain",)
    config.split.images_per_class = 0
    config.split.retain.update(dict(classes=(), random=0))  # all but those to be forgotten later
    config.data.token_cache.views = 0
    config.pretrain = common.phase(
        "pretrain",
        steps=500_000,
        batch_size=4096,
        tasks=("random_ratio",),
        on="all",
        optimizer=dict(lr=2.4e-3, warmup=0.025, weight_decay=0.05, clip=3.0),
    )


def sweep(config: common.Config) -> None:
    """Borders of 8 to 104 pixels, odd ones ending inside a token, and the four sides at 8/16."""
    for r in range(1, 14):
        if r != 8:
            args = dict(cells=32 - 2 * r, finer=2)
            config.tasks[f"outpaint_{r}"] = dict(task="outpaint", args=args)
    for edge in ("left", "right", "up", "down"):
        config.tasks[f"{edge}_8"] = dict(task="side", args=dict(cells=8, edge=edge))
    config.evaluate.tasks = tuple(name for name in config.tasks if name != "random_ratio")
