"""The table of config keys: default, type, bounds and meaning of each.

Configs are made from it (configs/common.py), every run is checked against it, `--help` prints it,
and docs/config.md shows it. It knows plain values only: no JAX, no plug-ins. The keys of `args`
and `solver_args` are the keyword-only arguments of the plug-in named beside them; engine/plan.py
looks those up.

Durations are steps. Sizes are images of one side (retain or forget) over all devices. Shares are
between 0 and 1. Sequences are tuples, because the command line cannot override lists.
"""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from l2l_jax.bounds import INF, MAX_SEED, Bounds
from l2l_jax.lib.errors import ConfigError, short, unknown_name
from l2l_jax.lib.signatures import KINDS, check_type, check_value

MAX_IMAGES = 10**9
MAX_STEPS = 10**8
MAX_BATCH = 1 << 20
MAX_RATE = 10  # a step of AdamW moves every value by about the learning rate; weights are below 1


@dataclasses.dataclass(frozen=True)
class Option:
    """One key of a config: its default decides its type; a number is finite and in [low, high].

    The bounds of a tuple are those of its numbers.
    """

    default: Any
    meaning: str
    low: float = -INF
    high: float = INF
    open_low: bool = False  # whether `low` itself is not allowed
    open_high: bool = False
    choices: tuple[str, ...] = ()  # of a text; () = any text
    special: tuple[float, ...] = ()  # numbers outside of [low, high] that are allowed too
    of: tuple[type, ...] = (str,)  # types of the values of a tuple; float stands for int too

    @property
    def kind(self) -> str:
        """The type, for people."""
        return next((kind[0] for kind in self._kinds), "section")

    @property
    def types(self) -> tuple[type, ...]:
        """The types that a value can have."""
        return next((kind[1] for kind in self._kinds), (Mapping,))

    @property
    def _kinds(self) -> list[tuple[str, tuple[type, ...]]]:
        return [kind for each, kind in KINDS.items() if isinstance(self.default, each)]

    @property
    def limits(self) -> Bounds:
        """The values that it can have."""
        opened = dict(open_low=self.open_low, open_high=self.open_high)
        return Bounds(self.low, self.high, **opened, special=self.special, choices=self.choices)

    @property
    def bounds(self) -> str:
        """The values that it can have, for people; "" if any of its type."""
        return str(self.limits)


Table = Mapping[str, "Option | Table"]

SIDE: Table = {
    "classes": Option(
        (), "class names, numbers, or titles that only one class has", 0, of=(str, int)
    ),
    "files": Option("", "a text file of image keys, one per line, or a split's JSON file"),
    "random": Option(
        0, "draw this many classes, with split.seed, from those nobody lists", 0, 10**6
    ),
    "rest": Option(False, "take everything that no other side takes"),
    "images_per_class": Option(
        0, "training images of each class; 0 = split.images_per_class", 0, MAX_IMAGES
    ),
    "images": Option(0, "training images in all, evenly over the classes; 0 = all", 0, MAX_IMAGES),
}
OPTIMIZERS = (  # those of lib/optim.py, which needs JAX
    *("adamw", "sgd", "sophia", "lion", "adafactor", "rmsprop", "adagrad", "adabelief", "radam"),
    *("nadam", "yogi", "novograd", "adopt", "ademamix"),
)
OPTIMIZER: Table = {
    "name": Option("adamw", "which optimizer", choices=OPTIMIZERS),
    "args": Option({}, "arguments of an optimizer other than adamw; see docs/methods.md"),
    "lr": Option(1e-4, "peak learning rate", 0, MAX_RATE),
    "warmup": Option(
        0.05, "share of the steps in which the learning rate rises from 0", 0, 1, open_high=True
    ),
    "final": Option(0.0, "learning rate at the end of the cosine", 0, MAX_RATE),
    "b1": Option(0.9, "decay of the first moment of adamw", 0, 1, open_high=True),
    "b2": Option(0.95, "decay of the second moment of adamw", 0, 1, open_high=True),
    "eps": Option(1e-8, "added to the root of the second moment of adamw", 0, 1, open_low=True),
    "weight_decay": Option(0.05, "weight decay, of kernels and embeddings alone", 0, 100),
    "clip": Option(0.0, "the largest norm of the whole gradient; 0 = no clipping", 0),
}
PHASE: Table = {
    "method": Option("", "a file of l2l_jax/methods"),
    "args": Option({}, "arguments of the method"),
    "solver": Option("weighted", "a file of l2l_jax/solvers"),
    "solver_args": Option({}, "arguments of the solver"),
    "steps": Option(100, "steps of the phase", 1, MAX_STEPS),
    "batch_size": Option(64, "images of each side in one step, over all devices", 1, MAX_BATCH),
    "accumulate": Option(1, "split each batch into this many passes, to save memory", 1, MAX_BATCH),
    "tasks": Option((), "names from config.tasks; step i uses the i-th, in turn"),
    "on": Option(
        "retain",
        "which images play the retain side: the retain split, its proxy, or all images of data",
        choices=("retain", "proxy", "all"),
    ),
    "stop": Option(
        "",
        "what ends the phase before its last step: empty = the method, if it says so; unseen = the "
        "loss on forget images reaches that on never-seen ones",
        choices=("", "unseen"),
    ),
    "teacher": Option(
        "",
        "the model that the method compares with: an earlier phase, as it ended; empty = the "
        "original",
    ),
    "saliency": Option(
        1.0,
        "share of the parameters that move: those with the largest gradient of the method's forget "
        "objective (SalUn takes the gradient of the training loss)",
        0,
        1,
        open_low=True,
    ),
    "ema": Option(
        0.0,
        "decay of a moving average of the trained parameters, such as 0.9999; the average is then "
        "the result of the phase; 0 = no average",
        0,
        1,
        open_high=True,
    ),
    "optimizer": OPTIMIZER,
}
TASK: Table = {
    "task": Option("", "a file of l2l_jax/tasks"),
    "args": Option({}, "arguments of the task"),
}
NETWORK: Table = {
    "name": Option("", "a file of l2l_jax/feature_networks"),
    "args": Option({}, "arguments of the network"),
}
TABLE: dict[str, "Option | Table"] = {
    "seed": Option(0, "seed of all randomness of the run", 0, MAX_SEED),
    "phases": Option(("unlearn",), "sections of this config, in the order in which they run"),
    "weights": Option("", "the original model: a file, or bundled:NAME; empty if a phase makes it"),
    "reference": Option(
        "",
        "models retrained without the forget images, if any: workdirs, weights files or "
        "bundled:NAME, one for each seed, separated like those of PATH (runs/a:runs/b)",
    ),
    "unclean_reference": Option(
        "stop",
        "what a reference does of which a part may have seen forget images, such as a tokenizer: "
        "stop the run, or be marked wherever it stands",
        choices=("stop", "mark"),
    ),
    "model": {
        "name": Option("", "a file of l2l_jax/models"),
        "args": Option({}, "arguments of the model"),
    },
    "data": {
        "name": Option("", "a file of l2l_jax/datasets"),
        "args": Option({}, "arguments of the data set"),
        "crop": Option(
            (),
            "(smallest, largest) share of the area of random crops; () = the central square",
            0,
            1,
            open_low=True,
            of=(float,),
        ),
        "flip": Option(False, "mirror half of the training images"),
        "resize": Option(
            "pillow",
            "the library that resizes crops; simd is cykooz.resizer, faster and nearly equal",
            choices=("pillow", "simd"),
        ),
        "cache": Option(
            "",
            "where decoded training images are kept: in memory, on disk, or nowhere",
            choices=("", "memory", "disk"),
        ),
        "proxy": {
            "name": Option("", "another data set from which split.proxy is taken"),
            "args": Option({}, "its arguments"),
        },
        "other": {
            "name": Option("", "a data set that nothing was trained on, for audits"),
            "args": Option({}, "its arguments"),
        },
        "broken": Option(
            "stop",
            "what an unreadable image does: stop the run, or be skipped",
            choices=("stop", "skip"),
        ),
        "token_cache": {
            "views": Option(
                0,
                "augmented views of each image that are tokenised before training; 0 = none",
                0,
                10_000,
            ),
            "noise": Option(
                1024,
                "noise images that are tokenised before training; 0 = new ones every step",
                0,
                10**7,
            ),
        },
    },
    "split": {
        "duplicates": Option(
            "stop",
            "what images with equal pixels on the forget side and another side do: stop the run, "
            "because none can be forgotten and kept, or be allowed",
            choices=("stop", "allow"),
        ),
        "missing": Option(
            "stop",
            "what the keys of a list that no image has do: stop the run, or be left out",
            choices=("stop", "skip"),
        ),
        "forget": SIDE,
        "retain": SIDE,
        "proxy": SIDE,
        "seed": Option(0, "seed of draws of classes and images", 0, MAX_SEED),
        "calibration": Option(
            0,
            "held-out images of each class for stop=unseen, which are not evaluated; at most half "
            "of them; 0 = none",
            0,
            MAX_IMAGES,
        ),
        "images_per_class": Option(0, "training images of each class; 0 = all", 0, MAX_IMAGES),
        "eval_images_per_class": Option(0, "held-out images of each class; 0 = all", 0, MAX_IMAGES),
    },
    "tasks": Option({}, "{name: {task, args}}: the masking tasks that phases and evaluation name"),
    "unlearn": PHASE,
    "evaluate": {
        "tasks": Option((), "names from config.tasks; the first is the headline"),
        "batch_size": Option(256, "images of one batch, over all devices", 1, MAX_BATCH),
    },
    "networks": Option(
        {"main": {"name": "classifier", "args": {}}},
        "{name: {name, args}}: feature networks; evaluators use main unless they name another",
    ),
    "evaluators": Option(
        {
            "fid": {},
            "inception_score": {},
            "cosine": {},
            "reconstruction": {},
            "output_distance": {},
            "tsne": {},
        },
        "{name: arguments}; `evaluator` names the file of l2l_jax/evaluators if `name` is none, "
        "and `network` the feature network",
    ),
    "audits": Option((), "audits to run: names of l2l_jax/audits, or quick, or all; () = none"),
    "audit": {
        "images": Option(256, "images of each set at most; 0 = all", 0, MAX_IMAGES),
        "args": Option({}, "{audit: its arguments}, in place of its defaults or quick ones"),
    },
    "report": {  # changes no figure; may differ when a run is continued
        "show_forgotten": Option(
            False,
            "whether pages show the images of a list to forget; off: nothing that somebody asked "
            "to delete is published again",
        ),
    },
    "recipe": {  # changes no figure; may differ when a run is continued
        "name": Option("", "the form word that chose the phases, such as l2l or images"),
        "reason": Option("", "why it was chosen, in words; empty = a config chose it"),
    },
    "runtime": {  # changes no result; may differ when a run is continued
        "fsdp": Option(
            1,
            "devices that share one copy of the parameters; -1 = all",
            1,
            MAX_BATCH,
            special=(-1,),
        ),
        "save_every": Option(500, "steps between checkpoints", 1, MAX_STEPS),
        "keep": Option(2, "checkpoints that are kept", 1, MAX_STEPS),
        "log_every": Option(5.0, "seconds between lines of progress", 0, 1e6),
        "threads": Option(
            -1, "threads that read images; -1 = one for each core", 1, 1024, special=(-1,)
        ),
        "workers": Option(0, "processes that read images; 0 = threads of this one", 0, 1024),
        "tensorboard": Option(True, "write TensorBoard files"),
        "keep_programs": Option(True, "keep compiled programs in the cache for later runs"),
        "token_folder": Option(
            "", "folder of data.token_cache, seen by all processes; empty = below the cache"
        ),
        "begin_from": Option("", "a workdir whose equal first phases are reused"),
        "profile_from": Option(0, "step at which a trace begins", 0, MAX_STEPS),
        "profile_steps": Option(0, "steps of the trace; 0 = no trace", 0, 10_000),
    },
}
OPTIONAL = ("unlearn", "report", "recipe")  # others may stand for the first; older runs lack some
ENTRIES = {"tasks": TASK, "networks": NETWORK}  # what each entry of these sections contains


def defaults(table: Table = TABLE) -> dict[str, Any]:
    """Nested dict of the defaults of a table."""
    return {
        key: copy.deepcopy(option.default) if isinstance(option, Option) else defaults(option)
        for key, option in table.items()
    }


def is_phase(section: Any) -> bool:
    """Whether a section of a config is one of its phases."""
    return isinstance(section, Mapping) and "method" in section


def flatten(table: Table, prefix: str = "") -> Iterator[tuple[str, Option]]:
    """(dotted key, option) of every key, in the order of the table."""
    for key, option in table.items():
        name = f"{prefix}{key}"
        if isinstance(option, Option):
            yield name, option
        else:
            yield from flatten(option, f"{name}.")


def documented() -> Iterator[tuple[str, Option]]:
    """(dotted key, option) of every key for people: phases and named entries once, by example."""
    for key, option in flatten(TABLE | {"unlearn": Option({}, "")}):
        if key == "unlearn":
            yield from flatten(PHASE, "PHASE.")
        else:
            yield key, option
        if key in ENTRIES:
            yield from flatten(ENTRIES[key], f"{key}.NAME.")


def check(config: Mapping[str, Any]) -> None:
    """ConfigError for a key that nobody reads, a key that is missing, a wrong type or value.

    config: plain nested dicts. The arguments of plug-ins are checked by engine/plan.py.
    """
    phases = {key: section for key, section in config.items() if is_phase(section)}
    for key in config:
        if key not in TABLE and key not in phases:
            raise unknown_name("config section", key, TABLE)
    for key, option in TABLE.items():
        if key in config and key not in phases:
            _check(key, config[key], option)
        elif key not in config and key not in OPTIONAL:
            raise ConfigError(f"The config has no section {key!r}; see docs/config.md.")
    for name, section in phases.items():
        _check(name, section, PHASE)
    for name, entry in config["evaluators"].items():
        if not isinstance(entry, Mapping):
            raise ConfigError(f"config.evaluators.{name} is a section, not {short(entry)}.")
    for section, table in ENTRIES.items():
        for name, entry in config[section].items():
            _check(f"{section}.{name}", entry, table)


def _check(where: str, value: Any, option: "Option | Table") -> None:
    if isinstance(option, Option):
        _check_value(where, value, option)
        return
    if not isinstance(value, Mapping):
        raise ConfigError(f"config.{where} is a section, not {short(value)}.")
    for key in value:
        if key not in option:
            raise unknown_name(f"key of {where}", key, option)
    if missing := [key for key in option if key not in value]:
        raise ConfigError(f"config.{where} lacks {', '.join(missing)}; see docs/config.md.")
    for key, inner in option.items():
        _check(f"{where}.{key}", value[key], inner)


def _check_value(where: str, value: Any, option: Option) -> None:
    about = f": {option.meaning}"
    check_type(where, value, option.kind, option.types, about)
    if isinstance(option.default, tuple):
        words = " or ".join(KINDS[each][0] for each in option.of)
        types = tuple(kind for each in option.of for kind in KINDS[each][1])
        for at, item in enumerate(value):
            check_type(f"{where}[{at}]", item, words, types, about)
    if not isinstance(option.default, Mapping):
        check_value(where, value, option.limits, "" if option.choices else about)
