"""Does every audit run on every large config? On synthetic images, with few steps.

    python -m launch.drills.audits --out runs/audits > audits.md

Runs the smoke form of each config for ImageNet and Places365 with all audits, those by name
included, and prints a table: how many figures each audit found, or why it was left out. The exit
status is 1 if an audit neither found anything nor said why, or if a run failed. Finished runs are
not run again. The figures mean nothing.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from l2l_jax.engine.run import run
from l2l_jax.lib import cli
from l2l_jax.registry import names

CONFIGS = (
    "configs/mae_imagenet.py:smoke",
    "configs/mae_places365.py:random,smoke",
    "configs/mage_imagenet.py:smoke",
    "configs/diffusion_places365.py:smoke",
)
FEW: dict[str, dict[str, Any]] = {  # arguments with which an audit does little
    "stitching": dict(steps=(0, 2)),
    "adversarial": dict(steps=2),
    "retrain_distance": dict(draws=2),
    "distinguish": dict(folds=2),
    "sequence": dict(steps=3),
    "shadow_models": dict(models=6, steps=1, unlearn_steps=1, draws=1),
    "backdoor": dict(steps=2, unlearn_steps=3),
    "relearn": dict(images_per_class=(2,), steps=(0, 2), lrs=(1e-3,)),
    "benign": dict(steps=(0, 2)),
    "membership": dict(draws=2),
    "memorization": dict(draws=2),
    "probe": dict(blocks=1),
}
IMAGES = 16  # of each set


def config_of(spec: str) -> Any:
    """The config with all audits, and as little as possible besides."""
    config = cli.load_config(spec)
    for phase in config.phases:
        config[phase].steps = 4
    config.evaluate.tasks = config.evaluate.tasks[:1]
    config.evaluators = dict(reconstruction=dict(grids=False))
    config.data.other = dict(name="digits", args=dict())
    config.audits, config.audit.images, config.audit.args = names("audit"), IMAGES, FEW
    return config


def lines(spec: str, folder: Path) -> list[str]:
    """One line of the table for each audit of a run."""
    found = run(config_of(spec), folder)["audits"]
    said = []
    for name in names("audit"):
        audit = found.get(name, {})
        outcome = audit.get("skipped") or f"{len(audit.get('rows', ()))} figures"
        seconds = sum(audit.get("seconds", {}).values())
        said.append(f"| `{spec}` | {name} | {outcome} | {seconds:.0f} s |")
    return said


def main() -> None:
    """The command line of this module's docstring."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--out", type=Path, default=Path("runs/audits"))
    parser.add_argument("--config", nargs="+", default=CONFIGS, help="instead of all of them")
    args = parser.parse_args()
    logging.getLogger("l2l_jax").setLevel(logging.WARNING)
    print("| config | audit | found | time |\n|---|---|---|---|")
    table = []
    for spec in args.config:
        table += lines(spec, args.out / Path(spec).stem)
        print("\n".join(table[-len(names("audit")) :]), flush=True)
    sys.exit(any("| 0 figures |" in line for line in table))


if __name__ == "__main__":
    cli.run_with_clear_errors(main)
