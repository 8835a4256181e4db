"""One experiment from its config to its page: the phases in order, then evaluation and report.

Running it again on the same workdir continues it: finished phases, and whatever a checkpoint
holds, are not done again.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from l2l_jax.engine import reuse
from l2l_jax.engine.answers import answer
from l2l_jax.engine.auditing import audit
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.evaluation import evaluate
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.outcome import Counts, Outcome, restored, run_phases
from l2l_jax.engine.plan import QUICK, choose_audits, resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.engine.train import train
from l2l_jax.lib import files, hosts, preemption, programs
from l2l_jax.lib.errors import ConfigError, Damaged
from l2l_jax.record.write import write_with_page
from l2l_jax.report import feature_networks, page, reference
from l2l_jax.workdir import claim
from l2l_jax.workdir.layout import Workdir

log = logging.getLogger(__name__)


def run(config: Mapping[str, Any], folder: str | Path) -> dict[str, Any]:
    """Runs or continues an experiment. Returns the content of its results.json.

    config: what a config file's get_config returns, or the same as plain dicts. folder: the
    workdir, seen by every process. Raises the errors of lib/errors.py for what a user can mend, and
    Preempted after SIGTERM (exit code 143) or Ctrl-C (130), once everything is saved.
    """
    folder = Path(folder).expanduser()
    with hosts.fail_together():
        plan = resolve(config)
        claim.check_config_matches(folder, plan.config, complete_config)
    if plan.config["runtime"]["keep_programs"]:
        programs.keep()
    if hosts.from_main(int(finished(folder))):
        log.info("%s is finished; see %s", folder, Workdir(folder).report)
        return Workdir(folder).read_results()
    with preemption.watch_signals() as stop, claim.lock(folder):
        experiment = preflight(plan, folder, stop)
        reuse.reuse_phases(experiment)
        experiment.share_notes()
        outcome = run_phases(experiment, train)
        results = evaluate(experiment, outcome)
        results = add_audits(experiment, outcome, results)
        answer(experiment, outcome, results)
        if hosts.is_main():
            log.info("%s", summary(results))
            log.info("the page is %s", write_with_page(folder))
    return files.as_json(results)


def evaluate_again(folder: Path) -> dict[str, Any]:
    """Evaluates the last checkpoint of every phase of a workdir and writes its page again.

    Damaged if a newer checkpoint than those that can be read is damaged, or missing.
    """
    with opened(folder) as (experiment, outcome):
        results = evaluate(experiment, outcome)
        results = add_audits(experiment, outcome, results)
        answer(experiment, outcome, results)
        if hosts.is_main():
            write_with_page(folder)
    return files.as_json(results)


def audit_again(folder: Path, only: Sequence[str] = ()) -> dict[str, Any]:
    """Audits an evaluated run and writes its page again; what is known is not measured again.

    only: names of audits, or of groups of them; () = those of the config, or the quick ones.
    ConfigError if the run is not evaluated yet, unlearns nothing, or there is no such audit.
    """
    with opened(folder, only) as (experiment, outcome):
        try:
            results = experiment.workdir.read_results()
        except FileNotFoundError:
            raise ConfigError(
                f"{folder} is not evaluated yet: run its command, or 'python -m l2l_jax.evaluate "
                f"--workdir {folder}'."
            ) from None
        if "unlearned" not in results["tasks"][results["task"]]:
            raise ConfigError(f"{folder} unlearns nothing: there is no forgetting to audit.")
        results = add_audits(experiment, outcome, results)
        if hosts.is_main():
            write_with_page(folder)
    return files.as_json(results)


@contextlib.contextmanager
def opened(
    folder: Path, audits: Sequence[str] | None = None
) -> Iterator[tuple[Experiment, Outcome]]:
    """A run and the result of its newest checkpoints, locked while the block runs.

    audits: those of the plan, as in audit_again; None = those of the config.
    """
    Workdir(folder).check_kinds()
    config = Workdir(folder).read_config()
    if jax.device_count() % max(1, config["runtime"]["fsdp"]):
        config["runtime"]["fsdp"] = -1  # it was trained on other devices than these
    plan = resolve(config)
    if config["runtime"]["keep_programs"]:
        programs.keep()
    if audits is not None:
        chosen = tuple(audits) or plan.config["audits"] or (QUICK,)
        plan = dataclasses.replace(plan, audits=choose_audits(chosen, plan.config["audit"]["args"]))
    with preemption.watch_signals("the checkpoints are unchanged") as stop, claim.lock(folder):
        experiment = preflight(plan, folder, stop)
        experiment.share_notes()
        outcome = run_phases(experiment, restored)
        _check_steps(Workdir(folder), outcome.done)
        yield experiment, outcome


def add_audits(experiment: Experiment, outcome: Outcome, results: dict[str, Any]) -> dict[str, Any]:
    """The results with what the audits of the plan found, which is also written to results.json."""
    found = audit(experiment, outcome)
    if found:
        results = results | {"audits": results["audits"] | found}
        if hosts.is_main():
            experiment.workdir.report.unlink(missing_ok=True)
            experiment.workdir.write_results(files.as_json(results))
    return results


def _check_steps(workdir: Workdir, done: Counts) -> None:
    """Damaged if the results are of later steps than the checkpoints, which must have been lost."""
    try:
        before = workdir.read_results()["steps"]
    except (Damaged, FileNotFoundError):
        return
    for phase, (step, _) in done.items():
        if step < before.get(phase, [0])[0]:
            raise Damaged(
                f"{workdir.checkpoints(phase)} ends at step {step}, and {workdir.results} is of "
                f"step {before[phase][0]}: checkpoints are missing. Remove "
                f"{workdir.results.name}; then run the command of this run again, or evaluate what "
                "there is."
            )


def finished(folder: Path) -> bool:
    """Whether all steps of all phases are done, evaluated, and on the page.

    False, with a line in the log, if the results or the page are damaged.
    """
    workdir = Workdir(folder)
    if not (workdir.results.exists() and workdir.report.exists()):
        return False
    try:
        steps = workdir.read_results()["steps"]
    except Damaged as error:
        log.warning("%s", error)
        return False
    if not page.is_intact(workdir.report):
        log.warning("%s is damaged or was edited; it is made again", workdir.report)
        return False
    return all(done == total for done, total in steps.values())


def summary(results: Mapping[str, Any]) -> str:
    """One line for the log: FID and PSNR of the first task, for every variant."""
    names = list(results["tasks"][results["task"]])
    parts = []
    for side in results["counts"]:
        for metric in ("fid", "psnr"):
            values = [results[name][side].get(metric) for name in names]
            if None not in values:
                random = metric in feature_networks.untrained(results)
                mark = f" ({feature_networks.RANDOM_MARK})" if random else ""
                shown = dict(zip(names, values, strict=True))
                own = [shown.pop(name) for name in ("original", "unlearned") if name in shown]
                change = " -> ".join(f"{value:.2f}" for value in own or shown.values())
                mark += _compared(results, side, metric, shown) if own else ""
                parts.append(f"{side} {metric} {change}{mark}")
    return f"{results['task']}: {', '.join(parts)}"


def _compared(
    results: Mapping[str, Any], side: str, metric: str, retrained: Mapping[str, float]
) -> str:
    """The figures of the retrained models in words, and whether the model is over-forgotten."""
    if not retrained:
        return ""
    parts = [f"{reference.name(name, results)} {value:.2f}" for name, value in retrained.items()]
    cells = results["tasks"][results["task"]]
    new, old = (cells.get(v, {}).get(side, {}).get(metric) for v in ("unlearned", "original"))
    aim, floor = reference.aim_of(cells, side, metric)
    over = side == "forget" and reference.over_forgotten(new, old, aim, floor)
    return f" ({', '.join(parts + [reference.OVER] * over)})"
