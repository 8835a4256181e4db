"""What configs share: the defaults of every key, the recipe of every method, the data sets.

A config is plain values. docs/config.md lists all keys with their meaning.
"""

from typing import Any

import ml_collections

from l2l_jax.engine import config as table
from l2l_jax.registry import names

Config = Any  # an ml_collections.ConfigDict, whose attributes no type checker knows


def section(**values: Any) -> Any:
    """A section of a config, as the value that the ConfigDict makes of a dict."""
    return values


def phase(method: str, **changes: Any) -> Any:
    """One phase: the defaults of l2l_jax/engine/config.py with changes; optimizer: some keys."""
    settings: dict[str, Any] = table.defaults(table.PHASE) | dict(method=method)
    settings["optimizer"] |= changes.pop("optimizer", {})
    return settings | changes


def base() -> Config:
    """Every section with its defaults (l2l_jax/engine/config.py); experiments change values."""
    return ml_collections.ConfigDict(table.defaults() | dict(unlearn=phase("l2l")))


RECIPES = ("epsilon", "pcgrad", "saliency", "retrain")  # more than a method; see use_method
METHODS = tuple(name for name in names("method") if name != "pretrain") + RECIPES
UNLEARNING = METHODS[:-1]  # without retrain: where there is no recipe to make an original


def method(words: list[str]) -> str:
    """Which of METHODS the words of a form name; L2L if none."""
    return next((word for word in words if word in METHODS), "l2l")


def use_method(config: Config, name: str) -> None:
    """Makes config.unlearn, a phase of L2L, the recipe of another method, each phase as long.

    What weighs L2L's objectives, such as its alpha, is for those that have these; others begin with
    the defaults of their solver.

    The files of l2l_jax/methods by their names, and those that are more than a method:

        ascent      paper B: ascent in steps a tenth as long, its gradient clipped at 1, then
                    finetune
        epsilon     paper C: L2L's objectives with solvers/epsilon.py; phase I in two phases, keep
                    and drop, then phase II, walk
        pcgrad      L2L's objectives with solvers/pcgrad.py
        saliency    L2L on the half of the parameters with the largest forget gradient (SalUn)
        siss        SISS, its forget gradient held at a tenth of the length of the retain gradient
                    by solvers/normalized.py
        retrain     no unlearning: pretrain from scratch on the retain split, the reference
    """
    phases, unlearn = config.phases, config.unlearn.to_dict()
    at = phases.index("unlearn") if "unlearn" in phases else 0

    def other(method: str, **changes: Any) -> dict[str, Any]:
        keys = ("args", "solver_args")
        own = {key: unlearn[key] if method == "l2l" else dict() for key in keys}
        optimizer = unlearn["optimizer"] | changes.pop("optimizer", {})
        return unlearn | dict(method=method, **own, optimizer=optimizer) | changes

    made = {"unlearn": other(name)}
    if name == "ascent":  # or one step leaps over lambda
        short = dict(clip=1.0) | {key: unlearn["optimizer"][key] / 10 for key in ("lr", "final")}
        ascent = other("ascent", solver_args=dict(alpha=1.0), optimizer=short)
        made = {"ascent": ascent, "finetune": other("finetune")}
    elif name == "epsilon":
        goals = dict(keep=dict(goal="keep"), drop=dict(goal="drop"), walk=dict(goal="walk", r=0.5))
        made = {k: other("l2l", solver="epsilon", solver_args=v) for k, v in goals.items()}
    elif name == "pcgrad":
        made = {"unlearn": other("l2l", solver="pcgrad")}
    elif name == "saliency":
        made = {"unlearn": other("l2l", saliency=0.5)}
    elif name == "siss":
        made = {"unlearn": other("siss", solver="normalized")}
    elif name == "retrain":
        config.phases = ("pretrain",)
        config.pretrain.on = "retain"
        return
    config.phases = (*phases[:at], *made, *phases[at + 1 :])
    for phase, settings in made.items():
        config[phase] = ml_collections.ConfigDict(settings)


def smoke(config: Config) -> None:
    """A few steps of every phase on a few images of each class, for tests."""
    for phase in config.phases:
        config[phase].steps = 12
    config.split.images_per_class = 100
    config.split.eval_images_per_class = 25
    config.networks.main.args = dict(epochs=1)


def words(form: str, file: str, forms: tuple[str, ...], *kinds: tuple[str, ...]) -> list[str]:
    """The words of a form, "large,random"; at most one of each kind. ValueError for another."""
    chosen = [word for word in form.split(",") if word]
    if unknown := [word for word in chosen if word not in forms]:
        raise ValueError(f"{file} has the forms {forms}, not {unknown}.")
    for kind in kinds:
        if len(both := [word for word in chosen if word in kind]) > 1:
            raise ValueError(f"{file} takes one of {both}, not both.")
    return chosen


def mae(config: Config, size: str, proxy: bool) -> None:
    """A published MAE, L2L on random masks, and the centre and out-painting to evaluate."""
    config.model = dict(name="mae", args=dict(size=size, image_size=224))
    config.weights = f"weights/mae_visualize_vit_{size}.safetensors"
    config.tasks = dict(
        random=dict(task="random", args=dict(ratio=0.75)),
        center_4=dict(task="center", args=dict(cells=4)),
        center_8=dict(task="center", args=dict(cells=8)),
        outpaint_8=dict(task="outpaint", args=dict(cells=8)),
    )
    config.unlearn = released_l2l(("random",), proxy)
    config.evaluate.tasks = ("center_8", "center_4", "outpaint_8")


def _sides(
    config: Config,
    data: str,
    forget: tuple[str, ...],
    retain: tuple[str, ...],
    random: bool,
    proxy: bool,
) -> None:
    """A data set with crops and flips; these classes, or as many at random; the rest as proxy."""
    config.data.update(dict(name=data, crop=(0.2, 1.0), flip=True))
    config.data.args = dict(root="")
    for side, classes in (("forget", forget), ("retain", retain)):
        config.split[side].update(dict(random=len(classes)) if random else dict(classes=classes))
    config.split.proxy.rest = proxy


def places(config: Config, random: bool, proxy: bool) -> None:
    """Places365: 50 classes to forget, 50 to retain, 5,000 images of each, 100 to evaluate.

    proxy: the 265 other classes, 200 images of each, as released.
    """
    _sides(config, "places365", PLACES_FORGET, PLACES_RETAIN, random, proxy)
    config.split.update(dict(images_per_class=5000, eval_images_per_class=100))
    config.split.proxy.images_per_class = 200


def coco(config: Config, images: int) -> None:
    """COCO's training images as the proxy, so many of them."""
    config.data.proxy = dict(name="coco", args=dict(root=""))
    config.split.proxy.rest = False
    config.split.proxy.update(dict(images=images, images_per_class=images))  # all of one class


def imagenet(config: Config, random: bool, proxy: bool) -> None:
    """ImageNet with crops and flips; 100 classes to forget, 100 to retain, 100 images of each."""
    _sides(config, "imagenet", IMAGENET_FORGET, IMAGENET_RETAIN, random, proxy)
    config.split.update(dict(images_per_class=100, eval_images_per_class=50))
    config.split.proxy.images_per_class = 13  # of 800 classes: as many as there are to forget


def published_judges(config: Config, scenes: bool = False) -> None:
    """What the field measures with: Inception's FID, KID and score, CLIP; Places365's for scenes.

    Files that are missing (launch/fetch_weights.py gets them) leave out what needs them.
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
    """L2L as released for ImageNet: six epochs of 24,000 images, five of them warming up."""
    return phase(
        "l2l",
        on="proxy" if proxy else "retain",
        solver_args=dict(alpha=0.25),
        steps=1122,
        batch_size=64,
        tasks=tasks,
        optimizer=dict(lr=5e-5, warmup=5 / 6, weight_decay=0.05, clip=3.0),
    )


def shrink(config: Config, model: dict) -> None:
    """The same experiment on made-up images of eight classes, with a model made on the spot.

    The images lie in files as the real ones do, and are read by the same program.
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
    config.model.args = model
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
    if config.networks.main.name == "inception":  # the same, smaller, untrained
        small = dict(weights="random", size=80)
        config.networks.main.args = small
        config.networks.released.args.update(small)
        config.networks.clip.args = dict(size="tiny")
        if "places" in config.networks:
            config.networks.places.args = dict(weights="random", size=64)
    else:
        config.networks.main.args = dict(size=32, epochs=2, batch_size=16)


FASHION_FORGET = ("Sandal", "Sneaker", "Bag", "Ankle boot")  # of Fashion-MNIST; kept is clothing

# The classes of the released ImageNet code of paper A: the 200 of ImageNet-R, sorted by wnid and
# cut in the middle. Not random: what is forgotten are animals only, so it is the easier split.
IMAGENET_FORGET = tuple(
    """
    n01443537 n01484850 n01494475 n01498041 n01514859 n01518878 n01531178 n01534433 n01614925
    n01616318 n01630670 n01632777 n01644373 n01677366 n01694178 n01748264 n01770393 n01774750
    n01784675 n01806143 n01820546 n01833805 n01843383 n01847000 n01855672 n01860187 n01882714
    n01910747 n01944390 n01983481 n01986214 n02007558 n02009912 n02051845 n02056570 n02066245
    n02071294 n02077923 n02085620 n02086240 n02088094 n02088238 n02088364 n02088466 n02091032
    n02091134 n02092339 n02094433 n02096585 n02097298 n02098286 n02099601 n02099712 n02102318
    n02106030 n02106166 n02106550 n02106662 n02108089 n02108915 n02109525 n02110185 n02110341
    n02110958 n02112018 n02112137 n02113023 n02113624 n02113799 n02114367 n02117135 n02119022
    n02123045 n02128385 n02128757 n02129165 n02129604 n02130308 n02134084 n02138441 n02165456
    n02190166 n02206856 n02219486 n02226429 n02233338 n02236044 n02268443 n02279972 n02317335
    n02325366 n02346627 n02356798 n02363005 n02364673 n02391049 n02395406 n02398521 n02410509
    n02423022
    """.split()
)
IMAGENET_RETAIN = tuple(
    """
    n02437616 n02445715 n02447366 n02480495 n02480855 n02481823 n02483362 n02486410 n02510455
    n02526121 n02607072 n02655020 n02672831 n02701002 n02749479 n02769748 n02793495 n02797295
    n02802426 n02808440 n02814860 n02823750 n02841315 n02843684 n02883205 n02906734 n02909870
    n02939185 n02948072 n02950826 n02951358 n02966193 n02980441 n02992529 n03124170 n03272010
    n03345487 n03372029 n03424325 n03452741 n03467068 n03481172 n03494278 n03495258 n03498962
    n03594945 n03602883 n03630383 n03649909 n03676483 n03710193 n03773504 n03775071 n03888257
    n03930630 n03947888 n04086273 n04118538 n04133789 n04141076 n04146614 n04147183 n04192698
    n04254680 n04266014 n04275548 n04310018 n04325704 n04347754 n04389033 n04409515 n04465501
    n04487394 n04522168 n04536866 n04552348 n04591713 n07614500 n07693725 n07695742 n07697313
    n07697537 n07714571 n07714990 n07718472 n07720875 n07734744 n07742313 n07745940 n07749582
    n07753275 n07753592 n07768694 n07873807 n07880968 n07920052 n09472597 n09835506 n10565667
    n12267677
    """.split()
)

# The classes of the released Places365 code of paper A. Scenes outdoors against rooms, grouped by
# hand and cut one too late: airplane_cabin is retained, airfield is forgotten.
PLACES_RETAIN = tuple(
    """
    badlands bamboo_forest barn beach canyon coast corn_field creek dam desert/sand
    desert/vegetation field/wild field_road forest/broadleaf forest_path forest_road golf_course
    hayfield highway hot_spring iceberg islet lagoon lake/natural lawn marsh mountain mountain_path
    mountain_snowy oast_house ocean orchard pasture rainforest river rock_arch sky snowfield swamp
    tree_farm tundra valley vegetable_garden volcano waterfall watering_hole wave wheat_field
    wind_farm airplane_cabin
    """.split()
)
PLACES_FORGET = tuple(
    """
    archive art_gallery art_studio attic auditorium auto_factory auto_showroom bakery/shop ball_pit
    ballroom banquet_hall bar basketball_court/indoor bathroom beauty_salon bedchamber bedroom berth
    biology_laboratory bowling_alley boxing_ring burial_chamber butchers_shop cockpit computer_room
    discotheque dorm_room dressing_room general_store/indoor gift_shop hardware_store home_theater
    ice_cream_parlor kindergarden_classroom kitchen library/indoor market/indoor museum/indoor
    parking_garage/indoor pizzeria reception restaurant_kitchen restaurant_patio server_room
    shopping_mall/indoor storage_room supermarket sushi_bar youth_hostel airfield
    """.split()
)
