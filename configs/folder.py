"""Forgets some of your own images: a folder with one sub-folder of images for each class.

    python -m l2l_jax.main --config configs/folder.py --workdir runs/pets \\
        --config.data.args.root=pets --config.split.forget.classes='("cats",)'
    python -m l2l_jax.main --config configs/folder.py:small --workdir runs/small \\
        --config.data.args.root=pets --config.split.forget.files=delete.txt

The first command loads the published MAE ViT-B (configs/mae_imagenet.py tells how to get the
weights). The second needs no weights: it first pretrains a small MAE at 64x64 pixels on all images
and logs how long that will take. The forget side is either whole classes or the images listed in a
text file, one key per line. A key is the path below the root, such as cats/001.jpg.

A tenth of each class is held out for evaluation. If the folder already has two parts, name them:
--config.data.args.train=train --config.data.args.eval=val.

Form words, joined by commas, as in small,max_loss:

    small       pretrain a small MAE instead of loading the published one. Its phases train on the
                masks that are evaluated, centre and out-painting, beside random ones; the phases
                without this word train on random masks only
    undo        after the method perturb the model and distill it on the retain images, so that the
                forgetting holds; see rebuild in configs/common.py
    resist      as undo, and bounds what a simulated attack brings back
    max_loss, ...    another method than l2l: one of METHODS in configs/common.py; retrain needs
                small, and fewer steps if it is to see each image as often as the original:
                --config.pretrain.steps=6000 times the share of the images that are kept
"""

from configs import common

FORMS = ("small", *common.REBUILDS, *common.METHODS)


def get_config(form: str = "") -> common.Config:
    """Returns the config. form: words of FORMS, joined by commas."""
    words = common.parse_form(form, "configs/folder.py", FORMS, common.METHODS)
    if "retrain" in words and "small" not in words:
        raise ValueError("configs/folder.py: retrain goes with small, as in small,retrain.")
    config = common.base()
    config.model = dict(name="mae", args=dict(size="base", image_size=224))
    config.weights = "weights/mae_visualize_vit_base.safetensors"
    config.data.name = "folder"
    config.data.args = dict(root="", train="", eval="", eval_fraction=0.1)
    config.data.crop = (0.2, 1.0)
    config.data.flip = True
    config.tasks = dict(
        random=dict(task="random", args=dict(ratio=0.75)),
        center=dict(task="center", args=dict(cells=6)),
        outpaint=dict(task="outpaint", args=dict(cells=8)),
    )
    config.unlearn = common.phase(
        "l2l",
        solver_args=dict(alpha=0.25),
        steps=500,
        batch_size=64,
        tasks=("random",),
        optimizer=dict(lr=5e-5, clip=3.0),
    )
    config.evaluate.tasks = ("center", "outpaint")
    config.networks.main.args = dict(size=64, epochs=10)
    if "small" in words:
        use_small_model(config)
    common.use_method(config, common.method_of_form(words))
    common.rebuild(config, words)
    return config


def use_small_model(config: common.Config) -> None:
    """Pretrains a small MAE from scratch: 64x64 pixels, 8x8 patches of 8x8 pixels."""
    config.model.args = dict(size="small", image_size=64, patch=8)
    config.weights = ""
    config.phases = ("pretrain", "unlearn")
    config.pretrain = common.phase(
        "pretrain",
        steps=6000,
        batch_size=128,
        tasks=("random", "center", "outpaint"),
        on="all",
        optimizer=dict(lr=1e-3, clip=1.0),
    )
    config.tasks.center.args.cells = 4
    config.tasks.outpaint.args.cells = 4
    config.unlearn.steps = 300
    config.unlearn.optimizer.lr = 3e-4
    config.unlearn.tasks = ("random", "center", "outpaint")
    config.networks.main.args.size = 32
