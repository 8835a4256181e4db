"""Trains a small autoencoder on CIFAR-10, then makes it forget four classes of animals.

    python -m l2l_jax.main --config configs/autoencoder_cifar10.py --workdir runs/cifar10
    python -m l2l_jax.main --config configs/autoencoder_cifar10.py:bundled --workdir runs/small

The setting of Varshney and Torra (arXiv 2502.04260): a network so small that retraining it from
scratch costs little. It forgets cats, deer, dogs and horses. Form words, joined by commas:

    bundled     the bundled Fashion-MNIST instead of CIFAR-10; forgets footwear and bags
    max_loss, ...    another method than l2l: one of common.METHODS, see use_method in
                configs/common.py. retrain makes the retrained model, without the forget images;
                its steps are fewer, so that it sees each image as often as the original does
    undo        after the method perturb the model and distill it on the retain images, so that the
                forgetting holds; see rebuild in configs/common.py. Alone it follows L2L; with
                another method write max_loss,undo
    resist      as undo, and bounds what a simulated attack brings back
    images      forget the single images that --config.split.forget.files lists
    smoke       a few steps on a tenth of the images, for tests; the figures mean nothing

Recipe. The paper does not state the network, the masks, the forget classes or any number, so all of
these are our choice: a convolutional autoencoder with 0.6 M parameters, masks of 4x4-pixel cells
filled with grey, mean squared error over all pixels, pretraining on all images, then L2L.

Needs: CIFAR-10, prepared by

    python launch/prepare/cifar10.py ~/data
    export L2L_DATA=~/data

Measured: nothing yet on CIFAR-10, because no machine could download it. With bundled, mean of three
seeds, original -> unlearned model: FID of completed centres 4.8 -> 4.8 on retain and 5.9 -> 73 on
forget images; PSNR 16.3 -> 16.2 and 14.7 -> 10.0 dB. docs/measured.md has the other methods.
"""

from configs import common

FORGET = ("cat", "deer", "dog", "horse")
FORMS = ("bundled", "smoke", *common.REBUILDS, *common.METHODS)


def get_config(form: str = "") -> common.Config:
    """Returns the config. form: words of FORMS, joined by commas."""
    words = common.parse_form(form, "configs/autoencoder_cifar10.py", FORMS, common.METHODS)
    config = common.base()
    config.phases = ("pretrain", "unlearn")
    config.model = dict(name="autoencoder", args=dict(size="small", image_size=32))
    config.data.name = "cifar10"
    config.data.args = dict(root="")
    config.data.flip = True
    config.split.forget.classes = FORGET
    config.tasks = dict(
        random=dict(task="random", args=dict(ratio=0.75)),
        center=dict(task="center", args=dict(cells=4)),  # of 8x8: hides 16x16 pixels
        outpaint=dict(task="outpaint", args=dict(cells=4)),  # shows 16x16 pixels
    )
    tasks = ("random", "center", "outpaint")
    config.evaluate.tasks = ("center", "outpaint")
    config.pretrain = common.phase(
        "pretrain",
        steps=20_000,
        batch_size=128,
        tasks=tasks,
        on="all",
        optimizer=dict(lr=2e-3, weight_decay=0.01, clip=1.0),
    )
    config.unlearn = common.phase(
        "l2l",
        solver_args=dict(alpha=0.25),
        steps=1000,
        batch_size=64,
        tasks=tasks,
        optimizer=dict(lr=1e-3),
    )
    if "bundled" in words:
        use_fashion_mnist(config)
    common.use_method(config, common.method_of_form(words), kept=common.SIX_OF_TEN)
    common.rebuild(config, words)
    if "bundled" in words and set(common.REBUILDS) & set(words):
        last = config.phases[-1]
        config[last].steps = 250  # pretraining is short: 3.5 % of it rebuild too little
    if "smoke" in words:
        common.use_few_steps(config)
    return config


def use_fashion_mnist(config: common.Config) -> None:
    """Fashion-MNIST instead of CIFAR-10; the run takes two minutes on two CPU cores."""
    config.data.name = "fashion_mnist"
    config.data.args = dict()
    config.data.flip = False
    config.split.forget.classes = common.FASHION_FORGET
    config.split.eval_images_per_class = 100
    config.pretrain.steps = 600
    config.unlearn.steps = 150
