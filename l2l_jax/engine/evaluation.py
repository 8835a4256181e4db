"""Evaluates the original and the unlearned model on the same images; writes results.json."""

import dataclasses
import logging
import time
from collections.abc import Mapping
from typing import Any

from l2l_jax.engine import (
    by_class,
    certificate,
    cost,
    evaluated,
    networks,
    provenance,
    retrained,
    tokenizer,
    unseen,
)
from l2l_jax.engine.completions import Completer, TrainingImages
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.outcome import Outcome, describe_parameters
from l2l_jax.engine.plan import EvaluatorPlan, Plan
from l2l_jax.engine.step import mean_name
from l2l_jax.engine.training_sets import passes, trained_on
from l2l_jax.lib import files, hosts
from l2l_jax.lib.errors import Damaged
from l2l_jax.report import page
from l2l_jax.types import Figure, Params, TokenModel

log = logging.getLogger(__name__)

Cells = dict[str, dict[str, dict[str, dict[str, Any]]]]  # {task: {variant: {side: {figure: ...}}}}
BOUND_TOLERANCE = 0.05  # share by which a mean over some batches may exceed its bound


def evaluate(experiment: Experiment, outcome: Outcome) -> dict[str, Any]:
    """Runs all evaluators of the plan and writes results.json; returns its content."""
    began, plan, model = time.perf_counter(), experiment.plan, experiment.model
    params = variants(experiment, outcome)
    skipped = networks.skipped_evaluators(plan, networks.missing_files(plan))
    loaded = networks.load(experiment)
    completer = Completer(experiment, params, loaded)
    evaluators = {name: x for name, x in plan.evaluators.items() if name not in skipped}
    for name, reason in skipped.items():
        log.warning("evaluate: %s is left out: %s", name, reason)
    described = describe_figures(evaluators)
    tasks, intervals, measured = measure(completer, evaluators, described)
    trained = trained_on(plan, experiment.splits)
    own = "unlearned" if "unlearned" in params else completer.variants[0]
    results = {
        **tasks[completer.tasks[0]],
        "audits": _earlier_audits(experiment, completer.digests),
        "tokenizer": tokenizer.measure(completer, model, params[own])
        if isinstance(model, TokenModel)
        else None,
        "seconds": cost.seconds(experiment) | {"evaluate": time.perf_counter() - began},
        "steps": {phase: list(counts) for phase, counts in outcome.done.items()},
        "cost": cost.of_phases(experiment, outcome),
        "pretraining": cost.of_pretraining(experiment, outcome),
        "ended": _endings(experiment, outcome),
        "reference": plan.config["reference"],
        **origins(experiment, outcome),
        "certificate": certificate.of_run(experiment, outcome) if _unlearns(plan) else None,
        "sampling": model.sampling,
        "evaluated": {v: describe_variant(v, experiment, outcome) for v in params},
        "trained_on": sorted(trained),
        "passes": {phase: passes(experiment, phase, n) for phase, (n, _) in outcome.done.items()},
        "task": completer.tasks[0],
        "tasks": tasks,
        "intervals": intervals,
        "by_class": by_class.measure(completer),
        "examples": by_class.examples(completer),
        "counts": {side: len(split.keys) for side, split in completer.sets.items()},
        "sets": evaluated.describe(completer.sets, experiment.splits, trained),
        "classes": {name: _titles(experiment, name) for name in experiment.splits},
        "networks": {k: {"name": x.name, **x.about} for k, x in loaded.items()},
        "measured": measured,
        "figures": {f.name: dataclasses.asdict(f) for d in described.values() for f in d.values()},
        "skipped": skipped,
        "digests": {
            "code": files.code_digest(),
            "splits": {name: split.digest for name, split in experiment.splits.items()},
            "weights": completer.digests,
            **completer.kept,
        },
    }
    if hosts.is_main():
        # No page shows older figures than the results beside it.
        experiment.workdir.report.unlink(missing_ok=True)
        files.write_json(experiment.workdir.results, results)
    return results


def _earlier_audits(experiment: Experiment, digests: Mapping[str, str]) -> dict[str, Any]:
    """What audits found before, if it was of the same weights."""
    try:
        before = experiment.workdir.read_results()
        return before["audits"] if before["digests"]["weights"] == dict(digests) else {}
    except (FileNotFoundError, Damaged, KeyError):
        return {}


def measure(
    completer: Completer,
    evaluators: Mapping[str, EvaluatorPlan],
    described: Mapping[str, Mapping[str, Figure]],
) -> tuple[Cells, Cells, dict[str, Any]]:
    """(figures, their intervals, {figure: evaluator and arguments}).

    Figures and intervals are {task: {variant: {side: {figure: ...}}}}; training images are measured
    under the first task only. described: what describe_figures returns. TypeError if an evaluator
    yields another figure.
    """
    variants, first = completer.variants, completer.tasks[0]
    sides = {task: list(completer.sets) if task == first else completer.sides
             for task in completer.tasks}  # fmt: skip
    tasks: Cells = {t: {v: {s: {} for s in sides[t]} for v in variants} for t in completer.tasks}
    intervals: Cells = {t: {v: {s: {} for s in sides[t]} for v in variants} for t in tasks}
    training = [TrainingImages(completer, s) for s in completer.sets if s not in completer.sides]
    cells = [(v, s, t) for t in completer.tasks for s in completer.sides for v in variants]
    if any(described.values()):
        cells += [(v, side, first) for each in training for side in each.sides for v in variants]
    measured: dict[str, Any] = {}

    def judge() -> None:
        for name, planned in evaluators.items():
            origin = {"evaluator": planned.evaluator.name, **planned.args}
            for evaluation in [completer, *(training if described[name] else [])]:
                values = planned.evaluator.evaluate(evaluation, **planned.args)
                for (variant, side, task), key, value in values:
                    if key not in described[name]:
                        raise TypeError(
                            f"evaluators/{planned.evaluator.name}.py yields the figure {key!r}, "
                            "which its FIGURES does not declare."
                        )
                    figure = described[name][key].name
                    measured[figure] = origin
                    if isinstance(value, tuple):
                        value, interval = value
                        intervals[task][variant][side][figure] = list(interval)
                    tasks[task][variant][side][figure] = float(value)

    completer.judged(judge, cells)
    return tasks, intervals, measured


def describe_figures(evaluators: Mapping[str, EvaluatorPlan]) -> dict[str, dict[str, Figure]]:
    """{evaluator: {figure as the evaluator yields it: figure as it stands in results.json}}.

    The order of the evaluators decides the order of the figures in tables. The figures of an
    evaluator under another name carry that name. If an evaluator under its own name has a figure of
    that name, or an earlier one has, the evaluator's name goes before it.
    """
    described: dict[str, dict[str, Figure]] = {name: {} for name in evaluators}
    taken: set[str] = set()
    own_first = sorted(evaluators, key=lambda name: name != evaluators[name].evaluator.name)
    for name in own_first:
        figures = evaluators[name].figures
        names = {
            f.name: f"{name}_{f.name}" if f.name in taken else f.name for f in figures.values()
        }
        taken |= set(names.values())
        described[name] = {
            key: dataclasses.replace(
                figure, name=names[figure.name], spread_of=names.get(figure.spread_of, "")
            )
            for key, figure in figures.items()
        }
    return described


def _titles(experiment: Experiment, name: str) -> list[str]:
    """The classes of a split as people call them."""
    split = experiment.splits[name]
    source = experiment.sources[split.part]
    title = dict(zip(source.classes, source.titles or source.classes, strict=True))
    return [title[each] for each in split.classes]


def variants_made(experiment: Experiment) -> tuple[str, ...]:
    """ "original", "unlearned", and the references: "retrained", "retrained_2", ...

    Of a run that only trains from scratch: "original", or "retrained" if it spared the forget
    images.
    """
    plan = experiment.plan
    if _unlearns(plan):
        return ("original", "unlearned", *_reference_names(experiment))
    spared = "forget" in experiment.splits
    spared = spared and "forget" not in trained_on(plan, experiment.splits)
    loaded = experiment.weights  # a whole model may have seen everything; a tokenizer is a part
    whole = loaded and loaded.params.keys() == experiment.model.template.keys()
    return ("retrained" if spared and not whole else "original",)


def _unlearns(plan: Plan) -> bool:
    return any(not planned.method.MAKES_ORIGINAL for planned in plan.phases.values())


def _reference_names(experiment: Experiment) -> tuple[str, ...]:
    """The variants that the references are; a run that only trains is compared with none."""
    count = len(experiment.references) if _unlearns(experiment.plan) else 0
    return retrained.names(count)


def variants(experiment: Experiment, outcome: Outcome) -> dict[str, Params]:
    """{variant: its parameters on the mesh} of `variants_made`."""
    names = variants_made(experiment)
    params = [outcome.final]
    if "unlearned" in names:
        references = [experiment.place(weights.params) for weights in experiment.references]
        params = [outcome.original, outcome.final, *references]
    return dict(zip(names, params, strict=True))


def describe_variant(variant: str, experiment: Experiment, outcome: Outcome) -> str:
    """Which parameters were evaluated as this variant, in words."""
    plan, done = experiment.plan, outcome.done
    names = _reference_names(experiment)
    if variant in names:
        at = names.index(variant)
        result = experiment.references[at].about["source"]["result"]
        return f"the reference {plan.references[at]}, {result}"
    original = {p: n for p, n in done.items() if plan.phases[p].method.MAKES_ORIGINAL}
    return describe_parameters(plan, original if variant == "original" else done)


def origins(experiment: Experiment, outcome: Outcome) -> dict[str, Any]:
    """{"training": {variant: its training, with a summary}, "unclean": {variant: reasons}}.

    Of every variant but the unlearned model. "unclean" holds the retrained models that are not
    clean; see engine/retrained.py. A warning in the log says if a reference saw its images more or
    less often than the original.
    """
    plan, names = experiment.plan, _reference_names(experiment)
    found = {
        name: weights.about["source"]["training"]
        for name, weights in zip(names, experiment.references, strict=False)
    }
    own = next(v for v in variants_made(experiment) if v not in names)
    making = {p: n for p, (n, _) in outcome.done.items() if plan.phases[p].method.MAKES_ORIGINAL}
    records = experiment.workdir.read_splits()
    found = {own: provenance.training_of(plan, records, making, experiment.weights)} | found
    trained = {name: {**each, **provenance.summary(each)} for name, each in found.items()}
    passes = trained[own]["passes"]
    for name in names:
        seen = trained[name]["passes"]
        if passes and seen and abs(seen / passes - 1) > retrained.MAX_DIFFERENCE:
            log.warning(
                "%s saw each retain image %.2f times, the original %.2f times: they do not compare "
                "on equal terms",
                *(name, seen, passes),
            )
    reasons = {
        name: retrained.problems(each, experiment.splits)
        for name, each in found.items()
        if name.startswith("retrained")
    }
    return {"training": trained, "unclean": {name: why for name, why in reasons.items() if why}}


def _endings(experiment: Experiment, outcome: Outcome) -> dict[str, str]:
    """{phase: whether its stopping criterion or bound was met, in words}, of phases with one."""
    last = {record["phase"]: record for record in experiment.workdir.read_metrics()}
    endings = {}
    for phase, (done, total) in outcome.done.items():
        noted, record = experiment.noted(phase), last.get(phase)
        if "bound" in noted:
            endings[phase] = _bounded(phase, total, noted)
        elif record and "ended" in record and (record["ended"] or done == total):
            endings[phase] = _until(experiment, phase, done, total, record)
    for text in endings.values():
        if text.startswith(page.NOT_REACHED):
            log.warning(text)
    return {phase: text for phase, text in endings.items() if text}


def _until(
    experiment: Experiment, phase: str, done: int, total: int, record: Mapping[str, float]
) -> str:
    """How a phase ended that stops when a metric reaches a limit; "" if it has no limit.

    record: the metrics of its last step.
    """
    planned, noted = experiment.plan.phases[phase], experiment.noted(phase)
    if planned.stop:
        return _unseen(phase, done, planned.steps, bool(record["ended"]), noted[unseen.NOTE])
    if not planned.method.UNTIL:
        return ""
    metric, argument = planned.method.UNTIL
    limit = planned.args.get(argument) or noted.get(argument)
    if not limit:
        return ""
    where = f"{record[mean_name(metric)]:.4g}, {argument} is {limit:.4g}"
    where += " (of the last step, not of the moving average)" if planned.ema else ""
    if noted.get("floor"):
        where += f" ({noted['distance']:.4g} minus {noted['floor']:.4g} between the references)"
    if record["ended"]:  # the step that found it changed nothing any more
        return f"{phase} ended by itself at step {done} of {planned.steps}: {metric} is {where}"
    return (
        f"{page.NOT_REACHED}: before the last of {total} steps of {phase} {metric} was {where}; "
        "give it more steps or a higher learning rate"
    )


def _unseen(
    phase: str, done: int, planned: int, ended: bool, noted: Mapping[str, Mapping[str, float]]
) -> str:
    """How a phase ended that stops at never-seen images; noted: the losses that it measured."""
    start, end = ([noted[when][side] for side in unseen.SIDES] for when in ("start", "end"))
    where = (
        f"the loss on forget images is {end[0]:.4g} and that on never-seen images of their classes "
        f"{end[1]:.4g}; at its start they were {start[0]:.4g} and {start[1]:.4g}"
    )
    if ended:
        return f"{phase} ended by itself at step {done} of {planned}: {where}"
    return (
        f"{page.NOT_REACHED}: after all {planned} steps of {phase} {where}; give it more steps or "
        "a higher learning rate"
    )


def _bounded(phase: str, total: int, noted: Mapping[str, float]) -> str:
    """How a phase ended that keeps the forget objective below a bound; both are noted."""
    over = noted["forget"] - noted["bound"]
    where = f"the forget objective is {noted['forget']:.4g}, its bound is {noted['bound']:.4g}"
    if over <= BOUND_TOLERANCE * abs(noted["bound"]):
        spent = (
            f"ended after {total} steps" if total else "starts at its solution, no step is taken"
        )
        return f"{phase} {spent}: {where}"
    return (
        f"{page.NOT_REACHED}: after {total} steps of {phase} {where}; give it more steps or a "
        "higher learning rate"
    )
