"""The forms of config.json, versions.json, results.json, splits, metrics and records."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l2l_jax.report.form import (
    Form,
    anything,
    check,
    count,
    digits,
    each,
    files,
    holding,
    many,
    maybe,
    number,
    one_of,
    section,
    text,
    whole,
)

VARIANT = re.compile(r"original|unlearned|retrained(_\d{1,4})?")
HELD_OUT = ("retain", "forget")  # sides that every task has; the first task may have more
SIDES = (*HELD_OUT, "retain_train", "forget_train")
MAX_PANELS = 8  # variants in a t-SNE record

_CELLS = each(maybe(number))  # {figure: value}
_BY_CLASS = each(each(each(section(dict(images=count, psnr=_CELLS)))))  # task, side, class
_INTERVALS = each(many(number, 2, 2))  # {figure: [low, high]}
_PHASE = section(
    dict(method=text, solver=text, steps=count, batch_size=count), dict(saliency=number)
)
_LAUNCH = section(dict(devices=text, code=text, git=maybe(text)))
_COST = section({}, dict.fromkeys(("seconds", "steps", "flops", "memory"), maybe(number)))
_FIGURE = section(
    dict(
        name=text, title=text, unit=text, good=one_of("up", "down", ""), digits=digits, note=text,
        spread_of=text, good_on_forget=text,
    )
)  # fmt: skip
_NETWORK = section(
    dict(name=text, digest=text),
    dict(weights=text, resize=text, scale=text, dtype=text, accuracy=number),
)
_TOKENIZER = section(dict(psnr=number, codebook_usage=number, codebook_perplexity=number))
_PASSES = each(section(dict(images=count, split=text, passes=number)))
_SPLIT = section(dict(part=text, count=count, digest=text, classes=many(text), skipped=many(text)))
_POINTS = many(many(number, 2, 2), least=1)
_TSNE = section(
    dict(task=text, groups=many(section(dict(variant=text, side=text, points=_POINTS)), least=1))
)
_MEASURED = section(dict(value=maybe(number), interval=maybe(many(number, 2, 2))))
_PLACE = section(dict(value=number, interval=maybe(many(number, 2, 2))))
_AUDIT = section(dict(title=text, cost=text, args=each(anything)), dict(skipped=text))
_AUDIT_FIGURE = section(dict(name=text, title=text, unit=text, digits=digits, over=text))
_RAN = section(
    dict(
        figures=many(_AUDIT_FIGURE),
        rows=many(anything),
        sentence=text,
        seconds=each(number),
        attack=one_of(True, False),
    )
)
_ROW = dict(
    at=each(anything), gap=maybe(number), floor=maybe(number), place=maybe(_PLACE), why=text
)
_ASSUMED = dict(assumptions=many(text))
_CERTIFICATES = {  # by their kind
    "none": dict(center=text, **dict.fromkeys(("distance", "epsilon", "delta", "sigma"), number)),
    "exact": dict(part=text, whole=one_of(True, False), body=many(text), **_ASSUMED),
    "noisy": dict(
        center=text, phase=text, steps=count, epsilon_of_the_theorem=maybe(number), **_ASSUMED,
        **dict.fromkeys(("epsilon", "delta", "mu", "sigma", "radius", "clip", "rate"), number),
    ),
}  # fmt: skip
_RESULTS: Mapping[str, Form] = dict(
    counts=each(count),
    classes=each(many(text)),
    ended=each(text),
    figures=each(_FIGURE),
    measured=each(section({}, dict(network=maybe(text)))),
    networks=each(_NETWORK),
    skipped=each(text),
    tokenizer=maybe(each(_TOKENIZER)),
    passes=each(_PASSES),
    seconds=each(maybe(number)),
    evaluated=each(text),
    sampling=maybe(text),
    trained_on=many(text),
    task=text,
    unclean=each(many(text)),
    training=each(
        section(
            dict(
                splits=text,
                images=maybe(count),
                passes=maybe(number),
                steps=maybe(count),
                tokenizer=text,
            )
        )
    ),
    sets=each(section(dict(images=count, of=count, part=text, trained_on=one_of(True, False)))),
    digests=section(
        dict(code=text, weights=each(text)),
        dict(splits=files(text), pictures=files(text), records=files(text)),
    ),
)


def check_config(path: Path, config: Any) -> None:
    """ConfigError names the first key of config.json that a page cannot be made with."""
    split = each(anything)
    evaluate = section(dict(tasks=many(text, least=1)))
    tokens = section({}, dict(views=count))
    data = section(dict(name=text), dict(token_cache=tokens))
    model = section(dict(name=text, args=each(anything)))
    basic = dict(
        seed=whole, phases=many(text, least=1), model=model, data=data, tasks=each(anything),
        evaluate=evaluate, split=split,
    )  # fmt: skip
    shown = section({}, dict(show_forgotten=one_of(True, False)))
    check(path, config, section(basic, dict(report=shown)))
    check(path, config, section(dict.fromkeys(config["phases"], _PHASE)))
    check(path, config["tasks"], holding(config["evaluate"]["tasks"], anything), ("tasks",))
    for side, wanted in config["split"].items():
        if isinstance(wanted, Mapping):
            check(path, wanted, section(dict(files=text)), ("split", side))


def check_versions(path: Path, versions: Any) -> None:
    """The same for versions.json."""
    check(path, versions, _LAUNCH)
    check(path, versions, section(dict(packages=each(anything), continued_with=many(_LAUNCH))))


def check_results(path: Path, results: Any, phases: list[str]) -> None:
    """The same for results.json; phases: those of the config."""
    steps = holding(phases, many(count, 2, 2))
    check(path, results, section({**_RESULTS, "steps": steps, "cost": each(_COST)}))
    sides = list(results["counts"])
    check(path, sides, many(one_of(*SIDES)), ("counts",))
    check(path, results, section(dict(tasks=holding([results["task"]], each(anything)))))
    variants = list(results["tasks"][results["task"]])
    check(path, variants, many(_variant, least=1), ("tasks", results["task"]))
    if "unlearned" in variants:
        check(path, variants, many(anything, least=2), ("tasks", results["task"]))
        check(path, results["tasks"][results["task"]], section(dict(original=anything)), ("tasks",))
    for key, inner in (("tasks", _CELLS), ("intervals", _INTERVALS)):
        held_out = holding([side for side in sides if side in HELD_OUT], inner)
        tasks = holding(list(results["tasks"]), holding(variants, held_out))
        first = section({results["task"]: holding(variants, holding(sides, inner))})
        check(path, results, section({key: tasks}))
        check(path, results[key], first, (key,))
    extra = dict(by_class=_BY_CLASS, examples=each(many(text)))
    check(path, results, section({}, extra))
    check(path, results, section({}, dict(pretraining=maybe(section(dict(flops=number))))))
    check(path, results, section(dict(sets=holding(sides, anything))))
    check(path, results, section({}, dict(audits=each(_audit), certificate=maybe(_certificate))))


def _certificate(value: Any, key: tuple[str, ...]) -> None:
    section(dict(kind=one_of(*_CERTIFICATES)))(value, key)
    section(_CERTIFICATES[value["kind"]])(value, key)


def _audit(value: Any, key: tuple[str, ...]) -> None:
    """What an audit found, or why it was left out."""
    _AUDIT(value, key)
    if "skipped" in value:
        return
    _RAN(value, key)
    figure = one_of(*(each["name"] for each in value["figures"]))
    row = section({**_ROW, "figure": figure, "values": each(_MEASURED)})
    many(row)(value["rows"], (*key, "rows"))
    for at, each_row in enumerate(value["rows"]):
        inner = (*key, "rows", str(at))
        each(_place_on_axis)(each_row["at"], (*inner, "at"))
        for name in each_row["values"]:
            _variant(name, (*inner, "values"))


def _place_on_axis(value: Any, key: tuple[str, ...]) -> None:
    """A number or a text: where on one axis a figure was measured."""
    text(value, key) if isinstance(value, str) else number(value, key)


def _variant(value: Any, key: tuple[str, ...]) -> None:
    """The name of a variant."""
    text(value, key)
    if not VARIANT.fullmatch(value):
        one_of("original", "unlearned", "retrained")(value, key)


def check_split(path: Path, split: Any) -> None:
    """The same for a file in splits/."""
    check(path, split, _SPLIT)


def check_metric(path: Path, record: Any, line: int) -> None:
    """The same for one line of metrics.jsonl."""
    sides: dict[str, Form] = dict.fromkeys(("retain", "forget"), maybe(number))
    check(path, record, section(dict(phase=text, step=count), sides), (f"line {line}",))


def check_tsne(path: Path, record: Any) -> None:
    """The same for tsne.json."""
    check(path, record, _TSNE)
    variants = list(dict.fromkeys(group["variant"] for group in record["groups"]))
    check(path, variants, many(text, 1, MAX_PANELS), ("variants",))


def check_answers(path: Path, answers: Any) -> None:
    """ConfigError names the first key of answers.json that a page cannot be made with."""
    names = ("loss_before", "loss_after", "unseen_before", "unseen_after", "score_before",
             "score_after")  # fmt: skip
    known: dict[str, Form] = dict.fromkeys(("exact_copies", "near_copies"), count)
    known |= dict.fromkeys(names, maybe(number))
    row = section(dict(digest=text, state=text), known)
    check(path, answers, section(dict(relative=one_of(True, False), rows=many(row))))
