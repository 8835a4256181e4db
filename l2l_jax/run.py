"""One experiment from its config to its page: the phases in order, then evaluation and report.

Running it again on the same workdir continues where it was: finished phases, and whatever a
checkpoint holds, are not done again.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from l2l_jax import evaluate, experiment
from l2l_jax.lib import files, preemption
from l2l_jax.report import page
from l2l_jax.train import train

log = logging.getLogger(__name__)


def run(config: Mapping[str, Any], workdir: str | Path) -> dict[str, Any]:
    """Runs or continues an experiment and returns the content of its results.json.

    config: what a config file's get_config returns, or the same as plain dicts. Raises the errors
    of lib/errors.py for what a user can mend, and Preempted (exit code 143) after SIGTERM.
    """
    config = config.to_dict() if hasattr(config, "to_dict") else config
    workdir = Path(workdir).expanduser()
    with preemption.watch() as stop:
        bench = experiment.prepare(config, workdir, stop)
        if (workdir / "report.html").exists():
            log.info("%s is finished; see %s", workdir, workdir / "report.html")
            return files.read_json(workdir / "results.json")
        original, final = experiment.walk(bench, train)
        results = evaluate.evaluate(bench, original, final)
    if jax.process_index() == 0:
        log.info("%s", summary(results))
        log.info("the page is %s", page.write(workdir))
    return files.as_json(results)


def summary(results: Mapping[str, Any]) -> str:
    """One line for the log: the figures of the first task, before and after."""
    before, after = results["original"], results.get("unlearned", results["original"])
    parts = []
    for side in results["counts"]:
        for metric in ("fid", "psnr"):
            if metric in before[side]:
                parts.append(
                    f"{side} {metric} {before[side][metric]:.2f} -> {after[side][metric]:.2f}"
                )
    return f"{results['task']}: {', '.join(parts)}"
