"""Helpers that the configs share: defaults, methods and recipes, models, data sets, networks.

A config holds plain values. docs/config.md lists every key with its meaning. The functions named
`use_...` change a config in place.
"""

from typing import Any

import ml_collections

from configs.classes import IMAGENET_FORGET, IMAGENET_RETAIN, PLACES_FORGET, PLACES_RETAIN
from configs.recipes import ONE_STEP, SEVERAL, SIMPLE
from l2l_jax.engine import config as table
from l2l_jax.registry import names

FASHION_FORGET = ("Sandal", "Sneaker", "Bag", "Ankle boot")  # of Fashion-MNIST; clothing is kept
SIX_OF_TEN = 0.6  # share of the images that are kept where four of ten equal classes are forgotten
Config = Any  # an ml_collections.ConfigDict; type checkers do not know its attributes


def section(**values: Any) -> Any:
    """Returns the values as a dict. Typed Any, because a ConfigDict converts a dict on assignment.

    Use it where the config changes keys of the section afterwards.
    """
    return values


def phase(method: str, **changes: Any) -> Any:
    """Returns the settings of one phase: the defaults of l2l_jax/engine/config.py with changes.

    changes: keys of the phase. `optimizer` may hold only some of the optimizer's keys.
    """
    settings: dict[str, Any] = table.defaults(table.PHASE) | dict(method=method)
    settings["optimizer"] |= changes.pop("optimizer", {})
    return settings | changes


def base() -> Config:
    """Returns a config with the defaults of every section and an `unlearn` phase of L2L."""
    return ml_collections.ConfigDict(table.defaults() | dict(unlearn=phase("l2l")))


PARTS = ("pretrain", "perturb", "distill")  # files of methods/ that no form word chooses alone
# Recipes are no files of methods/; see use_method.
RECIPES = ("epsilon", "pcgrad", "saliency", "uno", "conflict_free", "slug", "images", "certified")
RECIPES += ("retrain",)
METHODS = tuple(name for name in names("method") if name not in PARTS) + RECIPES
UNLEARNING = METHODS[:-1]  # without retrain: for configs that load the original from a file
REBUILDS = ("undo", "resist")  # words beside one of METHODS; see rebuild
REBUILD_SHARE = 0.026  # of the images that pretraining saw; undo costs 3.5 % of it, resist more
REBUILD_BATCH = 32


def method_of_form(words: list[str]) -> str:
    """Returns the word of a form that is in METHODS; "l2l" if there is none."""
    return next((word for word in words if word in METHODS), "l2l")


def use_method(config: Config, name: str, kept: float = 1.0) -> None:
    """Replaces config.unlearn, a phase of L2L, by the phases of another method.

    Every new phase has as many steps as config.unlearn, or one. L2L's arguments and those of its
    solver, such as alpha, stay only if the phase is one of L2L; otherwise the phase begins with the
    defaults of its method and solver.

    name is a file of l2l_jax/methods, or a recipe. These make more than a change of the method:

        ascent      paper B: ascent with a tenth of the learning rate and the gradient clipped at
                    norm 1, then finetune
        epsilon     paper C: L2L's objectives with solvers/epsilon.py; the phase full_forgetting
                    finds the boundaries, and the phase tradeoff ends between them, at r
        prune       one step of solvers/remove_units.py, then finetune
        adversarial_ascent    as slow as ascent, and clipped like it
        those of recipes.SIMPLE       one phase with other settings
        images      single images in place of classes, listed in split.forget.files: gradient ascent
                    at a third of the learning rate, with outputs and latents on retain images kept
                    as they are, until the listed images have the loss of never-seen ones
        certified   a guarantee of epsilon = 8 at delta = 1e-5: noisy steps with solvers/noisy.py in
                    a small ball around an initialisation, or around the public weights that
                    noisy.solver_args.center names; then finetune on retain images, with the
                    optimizer and the steps of pretrain if the config has it. It is a training
                    from the center more than an unlearning
        retrain     no unlearning: pretrains from scratch on the retain split, in `kept` times the
                    steps, the share of the images that are not forgotten: it sees each as often
    """
    config.recipe.name, phases, unlearn = name, config.phases, config.unlearn.to_dict()
    position = phases.index("unlearn") if "unlearn" in phases else 0

    def changed(method: str, **changes: Any) -> dict[str, Any]:
        """The settings of config.unlearn for another method, with changes."""
        keys = ("args", "solver_args")
        args = {key: unlearn[key] if method == "l2l" else dict() for key in keys}
        optimizer = unlearn["optimizer"] | changes.get("optimizer", {})
        return unlearn | dict(method=method, **args) | changes | dict(optimizer=optimizer)

    if name == "retrain":
        config.phases = ("pretrain",)
        config.pretrain.on = "retain"
        config.pretrain.steps = round(kept * config.pretrain.steps)
        return
    method, changes = SIMPLE.get(name, (name, {}))
    make = SEVERAL.get(name, lambda *_: {"unlearn": changed(method, **changes)})
    new = make(config, unlearn, changed)
    config.phases = (*phases[:position], *new, *phases[position + 1 :])
    for key, settings in new.items():
        config[key] = ml_collections.ConfigDict(settings)


def rebuild(config: Config, words: list[str], pretrained: int = 0, **optimizer: Any) -> None:
    """Adds two phases after those that unlearn, if one of REBUILDS is among the words of a form.

    They are to make the forgetting hold when it is attacked. perturb moves all parameters half of
    the way to a fresh initialisation (a = 0.5); then the model is rebuilt on retain or proxy
    images:

        undo      by distill, with the unlearned model as its teacher
        resist    by meta_unlearn with the same teacher: forget images keep 0.8 times its loss, also
                  after a simulated attack. It reads the forget images, too

    pretrained is the number of images that pretraining saw; 0 = as the phase pretrain says, or if
    there is none, so many that the rebuilding sees ten times the images of the phase before it.
    optimizer: of the rebuilding; its other keys are those of pretrain or of the phase before.

    a and the number of steps are preliminary. They are those of one run of undo on the bundled
    masked autoencoder: 1,250 steps of 32 images cost 3.5 % of its pretraining and brought the PSNR
    on retain images back to 0.2 dB below the original's. docs/results.md has a run of resist.
    """
    chosen = [word for word in REBUILDS if word in words]
    if not chosen:
        return
    last = config.phases[-1]
    before, word = config[last].to_dict(), chosen[0]
    if len(chosen) > 1:
        raise ValueError(f"{word} goes with a method, not with {chosen[1]}: leave one of them out.")
    if before["method"] == "pretrain":
        raise ValueError(
            f"{word} goes with a phase that unlearns, and {last} does not: leave it out."
        )
    if before["optimizer"] == ONE_STEP:
        raise ValueError(
            f"{word} goes with a phase that trains, and {last} is one step of {before['solver']}: "
            "leave it out."
        )
    made = config.pretrain.to_dict() if "pretrain" in config.phases else before
    if made is not before and not pretrained:
        pretrained = made["steps"] * made["batch_size"]
    seen = REBUILD_SHARE * pretrained or 10 * before["steps"] * before["batch_size"]
    tasks, on = before["tasks"], "proxy" if before["on"] == "proxy" else "retain"
    config.perturb = phase("perturb", args=dict(a=0.5), tasks=tasks)
    name, args = ("distill", {}) if word == "undo" else ("meta_unlearn", dict(times=0.8))
    config[name] = phase(
        name,
        args=args,
        teacher=last,
        on=on,
        tasks=tasks,
        steps=max(1, round(seen / REBUILD_BATCH)),
        batch_size=REBUILD_BATCH,
        optimizer=made["optimizer"] | optimizer,
    )
    config.phases = (*config.phases, "perturb", name)


def use_few_steps(config: Config) -> None:
    """Shortens a config for tests: 12 steps per phase, 100 training images per class."""
    for name in config.phases:
        config[name].steps = 12
    config.split.images_per_class = 100
    config.split.eval_images_per_class = 25
    config.networks.main.args = dict(epochs=1)


def parse_form(form: str, file: str, forms: tuple[str, ...], *kinds: tuple[str, ...]) -> list[str]:
    """Returns the words of a form: "large,random" becomes ["large", "random"].

    forms: all words that the config `file` knows. kinds: words that exclude each other.
    Raises ValueError for an unknown word, or for two words of one kind.
    """
    words = [word for word in form.split(",") if word]
    if unknown := [word for word in words if word not in forms]:
        raise ValueError(f"{file} has the forms {forms}, not {unknown}.")
    for kind in kinds:
        if len(conflicting := [word for word in words if word in kind]) > 1:
            raise ValueError(f"{file} takes one of {conflicting}, not both.")
    return words


def use_mae(config: Config, size: str, proxy: bool) -> None:
    """Sets a published MAE, L2L with random masks, and in-painting and out-painting to evaluate.

    size: base, large or huge. proxy: train on the proxy split in place of the retain split.
    """
    args = dict(size=size, image_size=224)
    if size == "huge":  # one block is compiled, and all devices share the parameters: docs/scale.md
        args["scan"], config.runtime.fsdp = True, -1
    config.model = dict(name="mae", args=args)
    config.weights = f"weights/mae_visualize_vit_{size}.safetensors"
    config.tasks = dict(
        random=dict(task="random", args=dict(ratio=0.75)),
        center_4=dict(task="center", args=dict(cells=4)),
        center_8=dict(task="center", args=dict(cells=8)),
        outpaint_8=dict(task="outpaint", args=dict(cells=8)),
    )
    config.unlearn = released_l2l(("random",), proxy)
    config.evaluate.tasks = ("center_8", "center_4", "outpaint_8")


def _use_classes(
    config: Config,
    dataset: str,
    forget: tuple[str, ...],
    retain: tuple[str, ...],
    random: bool,
    proxy: bool,
) -> None:
    """Sets a data set with random crops and flips, and its forget and retain classes.

    random: draw as many classes at random instead. proxy: all other classes form the proxy split.
    """
    config.data.update(dict(name=dataset, crop=(0.2, 1.0), flip=True))
    config.data.args = dict(root="")
    for side, classes in (("forget", forget), ("retain", retain)):
        config.split[side].update(dict(random=len(classes)) if random else dict(classes=classes))
    config.split.proxy.rest = proxy


def use_places365(config: Config, random: bool, proxy: bool) -> None:
    """Places365: 50 classes to forget, 50 to retain; 5,000 training and 100 evaluation images each.

    Paper C evaluates 500 images of each class; the validation part, which paper A's code uses, has
    100.

    proxy: the proxy split is the 265 other classes, 200 images each, as in the released code.
    """
    _use_classes(config, "places365", PLACES_FORGET, PLACES_RETAIN, random, proxy)
    config.split.update(dict(images_per_class=5000, eval_images_per_class=100))
    config.split.proxy.images_per_class = 200


def use_coco_proxy(config: Config, images: int) -> None:
    """Makes the proxy split from that many training images of COCO.

    Random crops then cover 0.2 to 0.5 of the area, those of all splits, as in the released code.
    """
    config.data.crop = (0.2, 0.5)
    config.data.proxy = dict(name="coco", args=dict(root=""))
    config.split.proxy.rest = False
    # COCO's images form a single class here, so the limit per class is the same number.
    config.split.proxy.update(dict(images=images, images_per_class=images))


def use_imagenet(config: Config, random: bool, proxy: bool) -> None:
    """ImageNet: 100 classes to forget, 100 to retain; 100 training and 50 evaluation images each.

    proxy: the proxy split is the 800 other classes, 13 images each.
    """
    _use_classes(config, "imagenet", IMAGENET_FORGET, IMAGENET_RETAIN, random, proxy)
    config.split.update(dict(images_per_class=100, eval_images_per_class=50))
    config.split.proxy.images_per_class = 13  # 800 classes: about as many images as to forget


def use_published_networks(config: Config, scenes: bool = False) -> None:
    """Sets the published feature networks: FID, KID and Inception Score of Inception, CLIP.

    scenes: also a network trained on Places365. l2l_jax/weights/fetch.py gets the files. The
    evaluation leaves out the figures of a network whose file is missing.
    """
    config.networks = section(
        main=dict(name="inception", args=dict()),
        clip=dict(name="clip", args=dict(size="h14")),
        released=dict(
            name="inception", args=dict(kind="torchvision", resize="legacy", scale="cifar")
        ),
    )
    config.evaluators.kid = dict()
    config.evaluators.is_released = dict(
        evaluator="inception_score", network="released", shuffle=False
    )
    config.evaluators.clip = dict(evaluator="cosine", network="clip")
    config.evaluators.tsne = dict(network="clip", points=50)
    del config.evaluators.cosine
    if scenes:
        config.networks.places = dict(name="places", args=dict())
        config.evaluators.is_places = dict(evaluator="inception_score", network="places")
        config.evaluators.fid_places = dict(evaluator="fid", network="places")


def released_l2l(tasks: tuple[str, ...], proxy: bool) -> dict:
    """Returns the L2L phase of the released ImageNet code.

    Six epochs of 24,000 images in batches of 128; the learning rate warms up during the first five.
    With 100 images of each class, as in the paper, there are 20,000: each is seen 7.18 times. The
    baselines, which were released with batches of 64 and half the learning rate, get the same.
    proxy: train on the proxy split in place of the retain split.
    """
    return phase(
        "l2l",
        on="proxy" if proxy else "retain",
        solver_args=dict(alpha=0.25),
        steps=1122,
        batch_size=64,
        tasks=tasks,
        optimizer=dict(lr=5e-5, warmup=5 / 6, weight_decay=0.05, clip=3.0),
    )


def use_synthetic_images(config: Config, model_args: dict) -> None:
    """Makes an experiment small, for tests: synthetic images of eight classes and a tiny model.

    The images are stored in files of the same format as the real ones and are read by the same
    code. No weights are loaded: a `pretrain` phase is put first if there is none.
    """
    sides = dict(forget=IMAGENET_FORGET, retain=IMAGENET_RETAIN)
    if config.data.name == "places365":
        sides = dict(forget=PLACES_FORGET, retain=PLACES_RETAIN)
    classes = sides["forget"][:4] + sides["retain"][:4]
    config.data.args.update(dict(synthetic=24, synthetic_classes=classes))
    if config.data.proxy.name:
        config.data.proxy.args = dict(synthetic=24)
        config.split.proxy.images = 24
    for side, known in sides.items():
        if config.split[side].random:
            config.split[side].random = 3
        elif config.split[side].classes:
            config.split[side].classes = known[:3]
    stored = dict(negation=16) if config.model.args.get("negation") else {}  # images of one batch
    config.model.args = model_args | stored
    config.weights = ""
    if "pretrain" not in config.phases:
        config.phases = ("pretrain", *config.phases)
        first = config.phases[1]
        config.pretrain = phase(
            "pretrain", tasks=config[first].tasks, on="all", optimizer=dict(lr=1e-3)
        )
    for name in config.phases:
        config[name].update(dict(steps=12, batch_size=16))
    config.evaluate.batch_size = 16
    if config.networks.main.name == "inception":  # the same networks, small and untrained
        small = dict(weights="random", size=80)
        config.networks.main.args = small
        config.networks.released.args.update(small)
        config.networks.clip.args = dict(size="tiny")
        if "places" in config.networks:
            config.networks.places.args = dict(weights="random", size=64)
    else:
        config.networks.main.args = dict(size=32, epochs=2, batch_size=16)
