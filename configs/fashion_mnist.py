"""Forgets footwear and bags in the bundled Fashion-MNIST images and keeps the clothing.

    python -m l2l_jax.main --config configs/fashion_mnist.py --workdir runs/demo
    python -m l2l_jax.main --config configs/fashion_mnist.py:mage --workdir runs/mage
    python -m l2l_jax.main --config configs/fashion_mnist.py:diffusion --workdir runs/diffusion
    python -m l2l_jax.main --config configs/fashion_mnist.py:max_loss --workdir runs/max_loss
    python -m l2l_jax.main --config configs/fashion_mnist.py:pretrain --workdir runs/pretrain

The first command loads a bundled masked autoencoder and unlearns classes 5, 7, 8 and 9 with L2L.
The second loads a bundled tokenizer and MAGE, the third a bundled diffusion model. Form words,
joined by commas:

    mage        MAGE instead of the masked autoencoder
    diffusion   a diffusion model for in-painting, with ten steps of DDIM sampling
    vqgan       the VQ-GAN that is MAGE's tokenizer; only with pretrain or retrain
    max_loss, ...    another method than l2l: one of common.METHODS, see use_method in
                configs/common.py. retrain makes the retrained model, without the four classes;
                its steps are fewer, so that it sees each image as often as the original does
    undo        after the method perturb the model and distill it on the retain images, so that the
                forgetting holds; see rebuild in configs/common.py. Alone it follows L2L; with
                another method write max_loss,undo
    resist      as undo, and bounds what a simulated attack brings back
    images      forget the single images that --config.split.forget.files lists
    pretrain    train the original from scratch on all ten classes. The bundled weights were made
                so (l2l_jax/weights/bundled/README.md). mage,pretrain loads the bundled tokenizer
    short       half as many unlearning steps, for grids of many runs
    smoke       a few steps on a tenth of the images, for tests; the figures mean nothing

A retrained MAGE needs a tokenizer that never saw the four classes either, made by two commands
before it:

    python -m l2l_jax.main --config configs/fashion_mnist.py:vqgan,retrain --workdir runs/tokenizer
    python -m l2l_jax.weights export runs/tokenizer runs/tokenizer.safetensors
    python -m l2l_jax.main --config configs/fashion_mnist.py:mage,retrain --workdir runs/retrained

The masked autoencoder is compared with a bundled retrained model, which never saw the four
classes. With another config.split set --config.reference= to compare with none.

All phases train on the masks that are evaluated, centre and out-painting; those of the ImageNet
configs, as released, train on random masks only.

Needs: nothing; images and weights are bundled. docs/measured.md has the figures.
"""

from configs import common

RETRAINED = "bundled:mae_fashion_mnist_retrained_0"  # never saw FORGET
RETRAINED_TOKENIZER = "runs/tokenizer.safetensors"  # what the docstring's commands export
MODELS = {
    "mae": dict(size="small", image_size=32),
    "mage": dict(
        size="small", image_size=32, tokenizer=dict(size="small"), steps=8, temperature=1.0
    ),
    "vqgan": dict(size="small", image_size=32),
    "diffusion": dict(
        size="small", image_size=32, cell=4, steps=200, beta_end=0.1, sample_steps=10
    ),
}
PRETRAINING = {
    "mae": dict(steps=12_000, batch_size=128, tasks=("random", "center", "outpaint")),
    "mage": dict(steps=7_000, batch_size=64, tasks=("random_ratio", "hole", "frame")),
    "vqgan": dict(steps=4_000, batch_size=64, tasks=("nothing",)),
    "diffusion": dict(steps=5_000, batch_size=32, tasks=("center", "outpaint", "freeform")),
}
FORMS = ("mage", "vqgan", "diffusion", "pretrain", "short", "smoke", *common.REBUILDS)
FORMS += common.METHODS


def get_config(form: str = "") -> common.Config:
    """Returns the config. form: words of FORMS, joined by commas; at most one model."""
    kinds = ("mage", "vqgan", "diffusion"), ("pretrain", *common.METHODS)
    words = common.parse_form(form, "configs/fashion_mnist.py", FORMS, *kinds)
    if "vqgan" in words and not {"pretrain", "retrain"} & set(words):
        raise ValueError(
            "configs/fashion_mnist.py: vqgan goes with pretrain or retrain, as in vqgan,pretrain."
        )
    name = next((word for word in words if word in MODELS), "mae")
    config = common.base()
    config.model = dict(name=name, args=MODELS[name])
    config.data.name = "fashion_mnist"
    config.data.other = dict(name="digits", args=dict())  # for audits
    config.tasks = common.section(
        random=dict(task="random", args=dict(ratio=0.75)),
        random_ratio=dict(task="random_ratio", args=dict()),
        nothing=dict(task="nothing", args=dict()),
        center=dict(task="center", args=dict(cells=4)),  # of 8x8: hides 16x16 pixels
        outpaint=dict(task="outpaint", args=dict(cells=4)),  # shows 16x16 pixels
        # For training MAGE: center and outpaint plus the margin that MAGE hides around a mask when
        # it makes completions.
        hole=dict(task="center", args=dict(cells=6)),
        frame=dict(task="outpaint", args=dict(cells=2)),
    )
    config.evaluate.tasks = ("center", "outpaint")
    if name == "diffusion":
        config.tasks.freeform = dict(task="freeform", args=dict(finer=4))  # masks single pixels
    if name == "mage":
        config.data.token_cache.views = 1  # no crops or flips: all views would be equal
    method = common.method_of_form(words)
    if "pretrain" in words:
        use_pretraining(config)
    elif method == "retrain":
        use_pretraining(config)
        config.split.forget.classes = common.FASHION_FORGET
        common.use_method(config, method, kept=common.SIX_OF_TEN)
        if name == "mage":
            config.weights = RETRAINED_TOKENIZER
    else:
        use_l2l(config)
        config.unlearn.steps //= 2 if "short" in words else 1
        common.use_method(config, method)
    if name == "mae" and config.weights and not {"images", "smoke"} & set(words):
        config.reference = RETRAINED  # of this split only
    made = PRETRAINING[name]  # the optimizer of a rebuilding is that of pretraining
    common.rebuild(config, words, made["steps"] * made["batch_size"], lr=1e-3, final=0.0, clip=1.0)
    if "smoke" in words:
        common.use_few_steps(config)
    return config


def use_l2l(config: common.Config) -> None:
    """Loads the bundled original and sets a phase of L2L."""
    name = config.model.name
    config.weights = f"bundled:{name}_fashion_mnist"
    config.split.forget.classes = common.FASHION_FORGET
    config.unlearn = common.phase(
        "l2l",
        solver_args=dict(alpha=0.25),
        steps=200,
        batch_size=64,
        tasks=("random", "center", "outpaint"),
        optimizer=dict(lr=3e-4),
    )
    if name == "mage":
        config.unlearn.update(dict(steps=150, tasks=("random_ratio", "hole", "frame")))
        config.unlearn.optimizer.lr = 8e-4
        config.split.eval_images_per_class = 150  # MAGE calls its network many times per completion
    if name == "diffusion":
        config.unlearn.update(dict(steps=240, batch_size=32, tasks=("center", "outpaint")))
        config.unlearn.args.relative = True  # feature maps differ in size
        config.unlearn.solver_args.alpha = 0.026  # at 0.03, FID on retain can rise by 15 %
        config.unlearn.ema = 0.98
        config.unlearn.optimizer.update(dict(lr=5e-4, b2=0.99, weight_decay=0.0))
        config.split.eval_images_per_class = 45  # ten calls of the network per completion
        config.evaluate.batch_size = 90  # divides the 270 and 180 images: no padding
    config.runtime.save_every = 100
    if name == "mae":  # the other models take minutes for completions of so many images
        config.audits = ("quick",)


def use_pretraining(config: common.Config) -> None:
    """Trains the original from scratch; MAGE with the bundled tokenizer."""
    config.phases = ("pretrain",)
    config.pretrain = common.phase("pretrain", on="all", **PRETRAINING[config.model.name])
    config.pretrain.optimizer.update(dict(lr=1e-3, clip=1.0))
    if config.model.name == "mage":
        config.weights = "bundled:vqgan_fashion_mnist"
        config.model.args.tying = "tied"  # one token embedding, as in the published model
    if config.model.name == "diffusion":
        config.model.args.tying = "tied"  # one embedding of the noise level, as published
        config.pretrain.optimizer.update(dict(weight_decay=0.0, b2=0.99))
    if config.model.name == "vqgan":
        config.pretrain.optimizer.update(dict(lr=3e-3, weight_decay=0.0))
    config.runtime.save_every = 1000
