"""What the original and the unlearned model make of held-out images, judged on the same footing.

    python -m l2l_jax.evaluate --workdir runs/demo

evaluates the last checkpoint of a workdir again and rewrites results.json and report.html.
"""

import dataclasses
import logging
import time
from collections.abc import Mapping
from typing import Any

from l2l_jax.engine.completions import Completer, missing_files, networks
from l2l_jax.engine.config import figure_name
from l2l_jax.engine.experiment import Experiment, Outcome, ending
from l2l_jax.lib import files, hosts
from l2l_jax.registry import find
from l2l_jax.report import page
from l2l_jax.types import Figure, Params, TokenModel

log = logging.getLogger(__name__)

SLACK = 0.05  # share by which a mean over some batches may exceed its bound


def evaluate(experiment: Experiment, outcome: Outcome) -> dict[str, Any]:
    """Runs config.evaluators and writes results.json; returns its content."""
    began, config = time.perf_counter(), experiment.config
    params = variants(experiment, outcome)
    model, skipped = experiment.model, _skipped(config)
    seen_by = networks(experiment)
    judge = Completer(experiment, params, seen_by)
    for name, reason in skipped.items():
        log.warning("evaluate: %s is left out: %s", name, reason)
    evaluators = {k: v for k, v in config["evaluators"].items() if k not in skipped}
    described = describe_figures(evaluators)
    tasks, measured = _measure(judge, evaluators, described)
    headline = judge.tasks[0]
    results = {
        **tasks[headline],
        "audits": {},
        "tokenizer": judge.tokenizer(judge.variants[-1]) if isinstance(model, TokenModel) else None,
        "seconds": _seconds(experiment) | {"evaluate": time.perf_counter() - began},
        "steps": {phase: list(counts) for phase, counts in outcome.done.items()},
        "cost": _cost(experiment, outcome),
        "ended": _ended(experiment, outcome),
        "reference": config["reference"],
        "sampling": model.sampling,
        "evaluated": {v: describe_variant(v, experiment, outcome) for v in params},
        "trained_on": sorted(experiment.trained_on()),
        "passes": {phase: experiment.passes(phase, n) for phase, (n, _) in outcome.done.items()},
        "task": headline,
        "tasks": tasks,
        "counts": {side: len(experiment.splits[f"{side}_eval"].keys) for side in judge.sides},
        "classes": {name: _titles(experiment, name) for name in experiment.splits},
        "networks": {k: {"name": x.name, **x.about} for k, x in seen_by.items()},
        "measured": measured,
        "figures": {f.name: dataclasses.asdict(f) for d in described.values() for f in d.values()},
        "skipped": skipped,
        "digests": {
            "code": files.code_digest(),
            "splits": {name: split.digest for name, split in experiment.splits.items()},
            "weights": judge.digests,
        },
    }
    if hosts.is_main():
        # No page tells older figures than the results beside it.
        (experiment.workdir / "report.html").unlink(missing_ok=True)
        files.write_json(experiment.workdir / "results.json", results)
    return results


def _measure(
    completer: Completer,
    evaluators: Mapping[str, Mapping[str, Any]],
    described: Mapping[str, Mapping[str, Figure]],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """({task: {variant: {side: {figure: value}}}}, {figure: evaluator and arguments}).

    described: as describe_figures returns it. TypeError if an evaluator yields another figure.
    """
    sides, variants = completer.sides, completer.variants
    tasks = {t: {v: {s: {} for s in sides} for v in variants} for t in completer.tasks}
    measured = {}
    for name, section in evaluators.items():
        args = {key: value for key, value in section.items() if key != "evaluator"}
        how = {"evaluator": section.get("evaluator", name), **args}
        evaluator = find("evaluator", how["evaluator"])
        for (variant, side, task), key, value in evaluator.evaluate(completer, **args):
            if key not in described[name]:
                raise TypeError(
                    f"evaluators/{how['evaluator']}.py yields the figure {key!r}, which its "
                    "FIGURES does not declare."
                )
            figure = described[name][key].name
            measured[figure] = how
            tasks[task][variant][side][figure] = float(value)
    return tasks, measured


def describe_figures(
    evaluators: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, Figure]]:
    """{evaluator: {figure as the evaluator yields it: figure as it stands in results.json}}.

    evaluators: config.evaluators without those that are skipped; their order decides the order of
    the figures in tables. The figures of an evaluator under another name carry that name, and it
    follows the title in brackets. If a name is taken, the name of the evaluator goes before it.
    """
    described: dict[str, dict[str, Figure]] = {}
    taken: set[str] = set()
    for name, section in evaluators.items():
        figures = find("evaluator", section.get("evaluator", name)).FIGURES
        names = {each.name: figure_name(name, section, each.name) for each in figures}
        names = {key: f"{name}_{new}" if new in taken else new for key, new in names.items()}
        taken |= set(names.values())
        renamed = section.get("evaluator", name) != name
        described[name] = {
            each.name: dataclasses.replace(
                each,
                name=names[each.name],
                title=f"{each.title} ({_label(name, figures[0])})" if renamed else each.title,
                spread_of=names.get(each.spread_of, ""),
            )
            for each in figures
        }
    return described


def _label(name: str, figure: Figure) -> str:
    """What an evaluator's name in the config adds to its figure: "places" for "fid_places"."""
    return name.removeprefix(figure.name).strip("_").replace("_", " ")


def _titles(experiment: Experiment, name: str) -> list[str]:
    """The classes of a split as people call them."""
    split = experiment.splits[name]
    source = experiment.sources[split.part]
    title = dict(zip(source.classes, source.titles or source.classes, strict=True))
    return [title[each] for each in split.classes]


def _skipped(config: Mapping[str, Any]) -> dict[str, str]:
    """{evaluator: why it cannot answer} of those whose network is not there."""
    missing = missing_files(config)
    asked = {name: args.get("network") for name, args in config["evaluators"].items()}
    return {name: missing[network] for name, network in asked.items() if network in missing}


def variants(experiment: Experiment, outcome: Outcome) -> dict[str, Params]:
    """{"original": ..., "unlearned": ...} and the reference as "retrained", if there is one.

    Of a run that only trains from scratch: {"original": ...}, or {"retrained": ...} if it spared
    the forget images.
    """
    config, retrained = experiment.config, experiment.reference
    if any(not experiment.method(phase).MAKES_ORIGINAL for phase in config["phases"]):
        found = {"original": outcome.original, "unlearned": outcome.final}
        return found | ({"retrained": experiment.placed(retrained.params)} if retrained else {})
    spared = "forget" in experiment.splits and "forget" not in experiment.trained_on()
    given = experiment.weights  # a whole model may have seen everything; a tokenizer is a part
    whole = given and given.params.keys() == experiment.model.template.keys()
    return {"retrained" if spared and not whole else "original": outcome.final}


def describe_variant(variant: str, experiment: Experiment, outcome: Outcome) -> str:
    """Which parameters were evaluated as this variant, in words."""
    done, reference = outcome.done, experiment.reference
    if variant == "retrained" and reference:
        made = reference.about["source"]["result"]
        return f"the reference {experiment.config['reference']}, {made}"
    making = {p: n for p, n in done.items() if experiment.method(p).MAKES_ORIGINAL}
    return ending(experiment, making if variant == "original" else done)


def _seconds(experiment: Experiment) -> dict[str, float]:
    """Time spent in each phase, over all launches."""
    spent = dict.fromkeys(experiment.config["phases"], 0.0)
    for record in files.read_jsonl(experiment.workdir / "metrics.jsonl"):
        spent[record["phase"]] = record["seconds"]
    return spent


def _cost(experiment: Experiment, outcome: Outcome) -> dict[str, dict[str, float]]:
    """Of each phase, over all launches: seconds, steps, FLOPs, and the peak of memory in bytes."""
    seconds, cost = _seconds(experiment), {}
    for phase, (done, _) in outcome.done.items():
        noted = experiment.noted(phase)
        cost[phase] = {"seconds": seconds[phase], "steps": done}
        if "step_flops" in noted:
            cost[phase]["flops"] = done * noted["step_flops"]
        if "memory" in noted:
            cost[phase]["memory"] = noted["memory"]
    return cost


def _ended(experiment: Experiment, outcome: Outcome) -> dict[str, str]:
    """What became of phases that have something to reach; "not reached" if they did not."""
    last = {r["phase"]: r for r in files.read_jsonl(experiment.workdir / "metrics.jsonl")}
    said = {}
    for phase, (done, total) in outcome.done.items():
        noted, record = experiment.noted(phase), last.get(phase)
        if "bound" in noted:
            said[phase] = _bounded(phase, total, noted)
        elif record and "ended" in record and (record["ended"] or done == total):
            said[phase] = _until(experiment, phase, done, total, record)
    for text in said.values():
        if text.startswith(page.NOT_REACHED):
            log.warning(text)
    return {phase: text for phase, text in said.items() if text}


def _until(
    experiment: Experiment, phase: str, done: int, total: int, record: Mapping[str, float]
) -> str:
    """Of a phase that ends when a metric reaches a limit; "" if it has none. record: its last."""
    settings, (metric, argument) = experiment.config[phase], experiment.method(phase).UNTIL
    limit = settings["args"].get(argument) or experiment.noted(phase).get(argument)
    if not limit:
        return ""
    where = f"{record[metric]:.4g}, {argument} is {limit:.4g}"
    where += " (of the last step, not of the moving average)" if settings["ema"] else ""
    if record["ended"]:  # the step that found it changed nothing any more
        return f"{phase} ended by itself at step {done} of {settings['steps']}: {metric} is {where}"
    return (
        f"{page.NOT_REACHED}: before the last of {total} steps of {phase} {metric} was {where}; "
        "give it more steps or a higher learning rate"
    )


def _bounded(phase: str, total: int, noted: Mapping[str, float]) -> str:
    """Of a phase that keeps the forget objective below a bound; both are noted."""
    over = noted["forget"] - noted["bound"]
    where = f"the forget objective is {noted['forget']:.4g}, its bound is {noted['bound']:.4g}"
    if over <= SLACK * abs(noted["bound"]):
        return f"{phase} ended after {total} steps: {where}"
    return (
        f"{page.NOT_REACHED}: after {total} steps of {phase} {where}; give it more steps or a "
        "higher learning rate"
    )
