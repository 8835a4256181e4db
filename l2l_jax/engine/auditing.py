"""Runs the audits of a plan on every variant of the model, and compares what they find.

What an audit finds of one variant is kept in the workdir as soon as it is known, so that a run that
is killed continues there. What many runs share (the original, bundled references) is also kept in
the cache, under a name that depends on everything that decides it. What the bundled models need for
the demo is part of the package (weights/bundled/audits.json), so that only the unlearned model is
attacked there.
"""

import dataclasses
import functools
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from l2l_jax.engine import audit_sets, evaluation
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.outcome import Outcome
from l2l_jax.engine.plan import AuditPlan
from l2l_jax.engine.subject import RESAMPLES, Examination, Laboratory
from l2l_jax.lib import files, hosts, placement, sealed, trees
from l2l_jax.lib.errors import CannotRun
from l2l_jax.lib.rng import seed_of
from l2l_jax.types import Audit, Finding, ImageSet, Params
from l2l_jax.weights.pretrained import BUNDLED

log = logging.getLogger(__name__)

SHIPPED = BUNDLED / "audits.json"
FEWEST = 8  # images of a set; with fewer an interval means nothing
DIGITS = 6  # significant ones of stored values

Record = dict[str, Any]  # {"findings": [...], "seconds"}: what an audit found of one variant


def audit(experiment: Experiment, outcome: Outcome) -> dict[str, Any]:
    """Runs or continues the audits of the plan. Returns {audit: what it found, as plain values}."""
    chosen = experiment.plan.audits
    variants = evaluation.variants(experiment, outcome)
    if not chosen or "unlearned" not in variants:
        return {}
    run = _Run(experiment, variants, audit_sets.load(experiment, _wanted(chosen)))
    return {name: run.compared(planned) for name, planned in chosen.items()}


def shared_records(experiment: Experiment, outcome: Outcome) -> dict[str, Record]:
    """{key: record} of every audit of the plan and every variant but the unlearned model."""
    chosen = experiment.plan.audits
    variants = evaluation.variants(experiment, outcome)
    run = _Run(experiment, variants, audit_sets.load(experiment, _wanted(chosen)))
    pairs = [(each, name) for each in chosen.values() for name in variants if name != "unlearned"]
    return {run.key(each, name): run.record(each, name) for each, name in pairs}


def _wanted(chosen: Mapping[str, AuditPlan]) -> set[str]:
    """The image sets that audits read."""
    return {name for each in chosen.values() for name in each.audit.SETS + each.audit.OPTIONAL}


@dataclasses.dataclass(frozen=True)
class _Run:
    """The audits of one run."""

    experiment: Experiment
    variants: Mapping[str, Params]
    sets: Mapping[str, ImageSet]

    @functools.cached_property
    def laboratory(self) -> Laboratory:
        return Laboratory(self.experiment)

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """{variant: digest of its parameters}."""
        canonical = self.experiment.canonical
        return {name: trees.digest(canonical(params)) for name, params in self.variants.items()}

    @functools.cached_property
    def unchanged(self) -> bool:
        """Whether encoder and decoder of the unlearned model are those of the original."""
        pair = [self.variants.get(name) for name in ("original", "unlearned")]
        if not all(pair):
            return False
        wholes = [self.experiment.canonical(each) for each in pair if each]
        networks = [{group: each[group] for group in ("encoder", "decoder")} for each in wholes]
        return len({trees.digest(each) for each in networks}) == 1

    @functools.cached_property
    def pixels(self) -> dict[str, str]:
        """{set: digest of its pixels and classes}."""
        return {
            name: files.digest_of_lines([*images.classes, images.images.tobytes().hex()])
            for name, images in self.sets.items()
        }

    def compared(self, planned: AuditPlan) -> dict[str, Any]:
        """What an audit found of all variants, or {"skipped": why it could not run}."""
        audit = planned.audit
        about = {"title": audit.TITLE, "cost": audit.COST, "args": dict(planned.args)}
        about |= {"unchanged": True} if self.unchanged else {}
        if why := self.obstacle(planned):
            log.warning("audit %s is left out: %s", audit.name, why)
            return about | {"skipped": why}
        try:
            records = {name: self.record(planned, name) for name in self.variants}
        except CannotRun as error:
            log.warning("audit %s is left out: %s", audit.name, error)
            return about | {"skipped": str(error)}
        return about | compared(planned, records, self.experiment.plan.seed)

    def obstacle(self, planned: AuditPlan) -> str:
        """Why an audit cannot run here; "" if it can."""
        audit = planned.audit
        if audit.refuses and (why := audit.refuses(self.experiment.model)):
            return why
        for name in audit.SETS:
            if name not in self.sets:
                hint = " (config.data.other names no data set)" if name == audit_sets.OTHER else ""
                return f"there are no images {name}{hint}"
            if len(found := self.sets[name]) < FEWEST:
                return f"{found.name} has {len(found)} images, an interval needs {FEWEST}"
        return ""

    def record(self, planned: AuditPlan, variant: str) -> Record:
        """What an audit found of a variant: from the workdir, the package, the cache, or new."""
        audit, workdir = planned.audit, self.experiment.workdir
        key = self.key(planned, variant)
        path = workdir.audit(audit.name, variant)
        exact = files.digest_of_lines(
            [key, files.code_digest(), jax.__version__, str(jax.devices())]
        )
        cached = files.cache_dir() / "audits" / f"{exact[:32]}.json"
        shared = variant != "unlearned"
        found = _read(path, key) or shipped().get(key)
        if found is None and shared and hosts.single_process():
            found = _read(cached, exact)
        found = hosts.json_from_main(found)
        if found is None:
            found = self.examine(planned, variant)
            if shared and hosts.is_main():
                _write(cached, exact, found)
        if hosts.is_main():
            _write(path, key, found)
        return found

    def key(self, planned: AuditPlan, variant: str) -> str:
        """A digest of all that decides a record but the code that makes it."""
        audit, plan, config = planned.audit, self.experiment.plan, self.experiment.config
        others = self.others(planned, variant)
        decides = [
            *(audit.name, planned.args, plan.seed, RESAMPLES, config["model"]),
            config["evaluate"]["batch_size"],  # masks are drawn batch by batch
            *(self.digests[variant], {name: self.digests[name] for name in others}),
            {name: self.pixels[name] for name in self.used(audit)},
            [(task.name, task.task.name, task.args) for task in plan.evaluate_tasks],
            [(t.name, t.task.name, t.args) for t in list(plan.phases.values())[-1].tasks],
            *self.read(planned),
        ]
        return files.digest_of_lines([json.dumps(files.as_json(decides), sort_keys=True)])

    def used(self, audit: Audit) -> list[str]:
        """The image sets that an audit uses and that there are."""
        return [name for name in audit.SETS + audit.OPTIONAL if name in self.sets]

    def read(self, planned: AuditPlan) -> list[Any]:
        """What Audit.READS names, as values that a digest is made of."""
        found: list[Any] = []
        for name in planned.audit.READS:
            if name == "other_tasks":
                found.append(self.laboratory.other_tasks)
                continue
            phase = self.laboratory.forgetting()
            values = [phase.name, phase.method.name, phase.args, phase.solver.name]
            values += [phase.solver_args, phase.batch_size, phase.accumulate, phase.optimizer]
            values += [phase.saliency, phase.ema]
            found.append([*values, [(t.name, t.task.name, t.args) for t in phase.tasks]])
        return found

    def others(self, planned: AuditPlan, variant: str) -> dict[str, Params]:
        """The variants that an audit reads besides the one it examines."""
        return {
            name: params
            for name, params in self.variants.items()
            if name != variant and name.partition("_")[0] in planned.audit.COMPARES
        } | ({variant: self.variants[variant]} if variant in planned.audit.COMPARES else {})

    def examine(self, planned: AuditPlan, variant: str) -> Record:
        """Runs an audit on a variant."""
        audit, began = planned.audit, time.perf_counter()
        log.info("audit %s: %s model", audit.name, variant)
        subject = Examination(
            laboratory=self.laboratory,
            variant=variant,
            params=self.variants[variant],
            others=self.others(planned, variant),
            sets={name: self.sets[name] for name in self.used(audit)},
        )
        declared = {figure.name for figure in audit.FIGURES}
        findings = []
        for found in audit.audit(subject, **planned.args):
            if found.figure not in declared:
                raise TypeError(
                    f"audits/{audit.name}.py yields the figure {found.figure!r}, which its "
                    "FIGURES does not declare."
                )
            findings.append(_plain(found))
        return {"findings": findings, "seconds": time.perf_counter() - began}


def compared(planned: AuditPlan, records: Mapping[str, Record], seed: int) -> dict[str, Any]:
    """{"figures": descriptions, "rows": see placement.compare, "sentence", "seconds"}."""
    by_place: dict[str, dict[str, Finding]] = {}
    for variant, record in records.items():
        for each in record["findings"]:
            found = _finding(each)
            place = json.dumps([found.figure, found.at], sort_keys=True)
            by_place.setdefault(place, {})[variant] = found
    rows = [
        placement.compare(found, seed_of(seed, "audit", "references"))
        for found in by_place.values()
    ]
    audit = planned.audit
    return {
        "figures": [dataclasses.asdict(figure) for figure in audit.FIGURES],
        "rows": rows,
        "sentence": audit.conclude(placement.Compared(rows)) if audit.conclude else "",
        "seconds": {variant: record["seconds"] for variant, record in records.items()},
        "attack": audit.TRAINS or audit.ATTACKS,
    }


@functools.cache
def shipped() -> dict[str, Record]:
    """{key: record} of the bundled models, for the quick audits of the demo."""
    return files.read_json(SHIPPED) if SHIPPED.exists() else {}


def _plain(found: Finding) -> dict[str, Any]:
    """A finding as plain values."""
    plain: dict[str, Any] = {"figure": found.figure, "value": _short(found.value)}
    if found.resamples is not None:
        plain["resamples"] = [_short(value) for value in found.resamples]
    return plain | ({"at": dict(found.at)} if found.at else {})


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _finding(plain: Mapping[str, Any]) -> Finding:
    resamples = plain.get("resamples")
    again = None if resamples is None else np.array(resamples)
    return Finding(plain["figure"], plain["value"], again, plain.get("at", {}))


def _read(path: Any, key: str) -> Record | None:
    content = sealed.read(path, key)
    return None if content is None else json.loads(bytes(content))


def _write(path: Any, key: str, record: Record) -> None:
    text = json.dumps(record).encode()
    sealed.write_if_possible(path, key, lambda file: file.write(text))
