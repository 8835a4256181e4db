"""Prints what the dial of the recipe undo does: cost, quality, and what relearning brings back.

    python launch/sweep.py --config configs/autoencoder_cifar10.py:bundled \\
        method=retrain,l2l,undo a=0.3,0.5,0.7 distill.steps=30,60,250 seed=0,1,2 --out runs/dial \\
        --config.audits=quick --config.evaluate.tasks='("center",)'
    python launch/dial.py runs/dial

    python launch/sweep.py --config configs/fashion_mnist.py method=l2l,undo a=0.4,0.5,0.6 \\
        distill.steps=250,1250 --out runs/dial_mae --config.audits=quick \\
        --config.reference=runs/retrained
    python launch/dial.py runs/dial_mae

The folder is the --out of a sweep whose runs have the audits relearn and benign. There is one row
for each group of runs that differ in their seed only, and all columns are means over its runs, of
the first evaluation task:

    cost        FLOPs of the phases that unlearn, over those of the original's training
    retain      PSNR on retain images, dB
    forget      PSNR on held-out forget images, dB
    relearn S   the same after S steps of training on 4 images of each forgotten class
    benign      the same after 40 steps on retain images
    held S      relearn S between the retrained model (0) and the runs of l2l (1)

Without a retrained model, or without runs of l2l, the columns "held" are empty. The level after an
attack depends on how good the model is in general: compare rows of equal retain PSNR.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from l2l_jax.lib import cli
from l2l_jax.lib.errors import ConfigError
from l2l_jax.report.collect import Record, collect_all
from l2l_jax.report.groups import Group, grouped
from l2l_jax.report.metrics import pretraining_share

STEPS = (5, 10, 40)  # of the attack "relearn", as in its quick form
PER_CLASS = 4  # images of that attack
BENIGN = {"trained_on": "retain_train", "steps": 40}
COLUMNS = ("cost", "retain", "forget", *(f"relearn {n}" for n in STEPS), "benign",
           *(f"held {n}" for n in STEPS))  # fmt: skip
Row = dict[str, float | None]


def audited(run: Record, audit: str, variant: str, **at: Any) -> float | None:
    """The PSNR that an audit found of a variant at a place; None if it did not."""
    for row in run.results.get("audits", {}).get(audit, {}).get("rows", ()):
        there = {key: row["at"].get(key) for key in at}
        if row["figure"] == "psnr" and there == at and variant in row["values"]:
            return row["values"][variant]["value"]
    return None


def figures(run: Record, variant: str) -> Row:
    """The columns of one variant of a run, without those that need other runs."""
    row: Row = {"cost": pretraining_share(run.results, run.unlearning)}
    for side in ("retain", "forget"):
        row[side] = run.headline[variant].get(side, {}).get("psnr")
    for steps in STEPS:
        place = {"images_per_class": PER_CLASS, "steps": steps}
        row[f"relearn {steps}"] = audited(run, "relearn", variant, **place)
    row["benign"] = audited(run, "benign", variant, **BENIGN)
    return row


def mean(rows: Sequence[Row]) -> Row:
    """The means of all columns; None where a row has no value."""
    found: Row = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        known = [value for value in values if value is not None]
        found[name] = statistics.fmean(known) if len(known) == len(values) else None
    return found


def table(groups: Sequence[Group]) -> dict[str, Row]:
    """{name of a model: its columns}: the original, the retrained model, then every group."""
    unlearned = [group for group in groups if group.unlearned]
    if not unlearned:
        raise ConfigError("None of the runs unlearns: give the --out of a sweep with undo.")
    runs = [run for group in unlearned for run in group.runs]
    rows = {}
    for variant in ("original", "retrained"):
        known = [figures(run, variant) for run in runs if variant in run.headline]
        rows |= {variant: mean(known) | {"cost": None}} if known else {}
    rows |= {g.label: mean([figures(run, "unlearned") for run in g.runs]) for g in unlearned}
    clean, hidden = rows.get("retrained", {}), _l2l(unlearned, rows)
    for row in rows.values():
        for steps in STEPS:
            row[f"held {steps}"] = _placed(row, clean, hidden, f"relearn {steps}")
    return rows


def _l2l(groups: Sequence[Group], rows: Mapping[str, Row]) -> Row:
    """The columns of the runs that unlearn by one phase of L2L alone; {} if there are none."""
    for group in groups:
        first = group.runs[0]
        if [first.config[phase]["method"] for phase in first.unlearning] == ["l2l"]:
            return rows[group.label]
    return {}


def _placed(row: Row, clean: Row, hidden: Row, name: str) -> float | None:
    """Where a value lies between that of the retrained model (0) and that of L2L (1)."""
    value, zero, one = (each.get(name) for each in (row, clean, hidden))
    if value is None or zero is None or one is None or one == zero:
        return None
    return (value - zero) / (one - zero)


def markdown(rows: Mapping[str, Row]) -> str:
    """The table as markdown: shares in percent, places and dB with two digits."""
    lines = [["model", *COLUMNS], [":--", *["--:"] * len(COLUMNS)]]
    for name, row in rows.items():
        cells = ["" if row[key] is None else f"{row[key]:.1%}" if key == "cost"
                 else f"{row[key]:.2f}" for key in COLUMNS]  # fmt: skip
        lines.append([name, *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this module's docstring."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("dial.py", description=__doc__, formatter_class=form)
    parser.add_argument("folder", type=Path, help="the --out of a sweep")
    folder = parser.parse_args(argv).folder
    workdirs = sorted(path.parent for path in folder.glob("*/results.json"))
    runs, _ = collect_all(workdirs or [folder])
    print(markdown(table(grouped(list(runs.values())))), end="")


if __name__ == "__main__":
    cli.run_with_clear_errors(main)
