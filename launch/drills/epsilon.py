"""Does r of the epsilon solver cover the range from full forgetting to the original?

    python launch/drills/epsilon.py --out runs/epsilon > docs/epsilon.md

Runs the solver for five values of r and three seeds on the bundled masked autoencoder (100 steps a
phase) and on the autoencoder (150 steps a phase), which launch/sweep.py does; about 45 minutes on
two cores. Then it prints a page with both tables, and checks for each seed:

    monotone    from r = 0 to r = 1, the forget objective rises, and PSNR on hidden pixels of
                held-out images rises on the forget side, and on the retain side but for differences
                below 0.05 dB (its 95 % interval is about +-0.3 dB)
    original    at r = 1 the forget objective is within 5 % of the original's
    range       the forget objective at r = 0 is within 5 % of the range of epsilon_min

The retain objective is not checked: it falls along the front, and 100 steps do not reach the front
from everywhere. The objectives are means over 33 batches of the phase, from phases.json. Finished
runs are not run again. The exit status is 1 if a check fails.
"""

import argparse
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from l2l_jax.workdir.layout import Workdir  # noqa: E402

POINTS, SEEDS = ("0", "0.25", "0.5", "0.75", "1"), ("0", "1", "2")
MODELS = {
    "masked autoencoder": ("configs/fashion_mnist.py:short", "mae"),
    "autoencoder": ("configs/autoencoder_cifar10.py:bundled", "autoencoder"),
}
TOLERANCE = 0.05
TIE = 0.05  # dB of retain PSNR
OVERRIDES = (
    '--config.evaluate.tasks=("center",)',
    "--config.split.eval_images_per_class=50",
    "--config.audits=()",
)


HEAD = """\
# What r of the epsilon solver does

Made by `python launch/drills/epsilon.py`, float32 on 2 CPU cores.

At the end of the trade-off, for five values of r: r = 0 forgets as far as full forgetting does, and
r = 1 is the original. PSNR is that of hidden pixels of held-out images under the centre task. The
forget objective follows the bound, and both PSNRs are in order. The retain objective is not in
order everywhere: along the front it would fall from r = 0 to r = 1, and the runs are too short to
reach the front from both sides.\
"""


class Point(NamedTuple):
    """What one run ends with."""

    retain: float  # objectives
    forget: float
    retain_psnr: float  # dB, hidden pixels, held-out images
    forget_psnr: float
    boundaries: dict[str, float]
    original: dict[str, Any]  # figures of the original


def sweep(spec: str, out: Path) -> list[str]:
    """The command that runs all points of one model."""
    axes = ["method=epsilon", f"r={','.join(POINTS)}", f"seed={','.join(SEEDS)}"]
    words = ["launch/sweep.py", "--config", spec, *axes, "--out", str(out), *OVERRIDES]
    return [sys.executable, *words]


def read(folder: Path) -> Point:
    """The point of a finished run."""
    workdir = Workdir(folder)
    notes, results = workdir.read_notes(), workdir.read_results()
    end, model = notes["tradeoff"], results["unlearned"]
    return Point(
        end["retain"],
        end["forget"],
        model["retain"]["psnr"],
        model["forget"]["psnr"],
        notes["full_forgetting"]["boundaries"],
        results["original"],
    )


def checks(points: list[Point]) -> dict[str, bool]:
    """{check: whether it holds} for the points of one seed, r ascending."""
    found = points[0].boundaries
    low, high = found["full_forgetting"], found["full_utility"]

    def ordered(name: str, sign: int, tie: float = 0.0) -> bool:
        return bool(np.all(sign * np.diff([getattr(point, name) for point in points]) > -tie))

    orders = (("forget", 1), ("forget_psnr", 1), ("retain_psnr", 1, TIE))
    return {
        "monotone": all(itertools.starmap(ordered, orders)),
        "original": abs(points[-1].forget - high) <= TOLERANCE * high,
        "range": points[0].forget - low <= TOLERANCE * (high - low),
    }


def main() -> None:
    """The command line of this module's docstring."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--out", type=Path, default=Path("runs/epsilon"))
    args, good = parser.parse_args(), True
    print(HEAD)
    for title, (spec, name) in MODELS.items():
        out = args.out / name
        subprocess.run(sweep(spec, out), cwd=ROOT, check=True, stdout=sys.stderr)
        print(f"\n## The {title}\n\n`{spec}`, one row for each seed and r.\n")
        print("| seed | r | retain objective | forget objective | retain PSNR | forget PSNR |")
        print("| --: | --: | --: | --: | --: | --: |")
        verdicts = []
        for seed in SEEDS:
            points = [read(out / f"epsilon,r={r},seed={seed}") for r in POINTS]
            original, high = points[0].original, points[0].boundaries["full_utility"]
            rows = [(r, *point[:4]) for r, point in zip(POINTS, points, strict=True)]
            psnr = [original[side]["psnr"] for side in ("retain", "forget")]
            for r, *values in [*rows, ("original", 0.0, high, *psnr)]:
                texts = [f"{x:.4f}" for x in values[:2]] + [f"{x:.2f} dB" for x in values[2:]]
                print(f"| {seed} | {r} | {' | '.join(texts)} |")
            verdicts.append((seed, checks(points)))
        for seed, found in verdicts:
            words = [f"{check} {'yes' if holds else 'NO'}" for check, holds in found.items()]
            print(f"\nSeed {seed}: {', '.join(words)}.")
            good &= all(found.values())
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
