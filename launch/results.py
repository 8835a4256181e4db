"""The grid of docs/results.md: every method on two bundled models, with audits.

    python launch/results.py                      run what is missing, then write the tables
    python launch/results.py --only mae           the same for one grid
    python launch/results.py --tables             write the tables from the rows that there are

A row is one run. When it is finished, what the tables need of it is kept in
docs/results/GRID-METHOD-SEED.json, and the run is not made again; delete the file to repeat it.
launch/sweep.py makes the runs, in OUT/GRID. The tables stand in docs/results.md between marks; the
text around them is written by hand. Each grid also has a plot, docs/results/GRID.png.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from configs.common import REBUILDS, UNLEARNING  # noqa: E402
from l2l_jax.lib import cli, files  # noqa: E402
from l2l_jax.lib.errors import unknown_name  # noqa: E402
from l2l_jax.report import compare  # noqa: E402
from l2l_jax.report.collect import Record, collect  # noqa: E402

PAGE, ROWS = ROOT / "docs/results.md", ROOT / "docs/results"
FIGURES = ("fid", "psnr", "retrain_distance")
KEPT = ("config", "versions", "results")  # of a record; of its splits the digest and the part
MAE = "configs/fashion_mnist.py:short"
AUTOENCODER = "configs/autoencoder_cifar10.py:bundled"


class Grid(NamedTuple):
    """Rows that are made alike and stand in one table."""

    spec: str
    references: int  # bundled retrained models
    model: str
    audits: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]

    def overrides(self) -> list[str]:
        """What every run of the grid changes in the config."""
        names = [f"bundled:{self.model}_retrained_{seed}" for seed in range(self.references)]
        return [
            f"--config.reference={os.pathsep.join(names)}",
            f'--config.audits=("{self.audits}",)',
            '--config.evaluate.tasks=("center",)',
            "--config.runtime.tensorboard=False",
        ]


# images needs a list of images, safe_denoiser a diffusion model.
METHODS = tuple(n for n in (*UNLEARNING, *REBUILDS) if n not in ("images", "safe_denoiser"))
# ridge_head needs a linear last layer.
CONVOLUTIONAL = tuple(name for name in METHODS if name != "ridge_head")
ALL = ("l2l", "finetune", "ascent", *REBUILDS)
GRIDS = {
    "mae": Grid(MAE, 2, "mae_fashion_mnist", "quick", METHODS, (0, 1, 2)),
    "autoencoder": Grid(
        AUTOENCODER, 3, "autoencoder_fashion_mnist", "quick", CONVOLUTIONAL, (0, 1, 2)
    ),
    "mae_all": Grid(MAE, 2, "mae_fashion_mnist", "all", ALL, (0,)),
    "autoencoder_all": Grid(AUTOENCODER, 3, "autoencoder_fashion_mnist", "all", ALL, (0,)),
}


def path_of(grid: str, method: str, seed: int) -> Path:
    """The file of a row."""
    return ROWS / f"{grid}-{method}-{seed}.json"


def missing(name: str) -> dict[int, list[str]]:
    """{seed: methods} of the rows of a grid that are not kept yet."""
    grid = GRIDS[name]
    return {
        seed: methods
        for seed in grid.seeds
        if (methods := [m for m in grid.methods if not path_of(name, m, seed).is_file()])
    }


def run(name: str, out: Path) -> None:
    """Makes the missing rows of a grid, and keeps what is finished after each seed."""
    grid, folder = GRIDS[name], out / name
    keep(name, folder)
    for seed, methods in missing(name).items():
        axes = [f"method={','.join(methods)}", f"seed={seed}", "--out", str(folder)]
        words = ["launch/sweep.py", "--config", grid.spec, *axes, *grid.overrides()]
        print(f"{name}, seed {seed}: {', '.join(methods)}", flush=True)
        subprocess.run([sys.executable, *words], cwd=ROOT, check=False)
        keep(name, folder)
    if rows := missing(name):
        listed = ", ".join(f"{method} with seed {s}" for s, ms in rows.items() for method in ms)
        sys.exit(f"{name} lacks {listed}; their logs are in {folder / 'logs'}.")


def keep(name: str, folder: Path) -> None:
    """Keeps the finished runs of a grid as rows."""
    for seed, methods in missing(name).items():
        for method in methods:
            workdir = folder / f"{method},seed={seed}"
            if (workdir / "results.json").is_file() and _audited(record := collect(workdir)):
                text = json.dumps(_row(record), sort_keys=True, separators=(",", ":"))
                with files.atomic_write(path_of(name, method, seed)) as file:
                    file.write(f"{text}\n".encode())


def _audited(record: Record) -> bool:
    """Whether the audits of the run are in its results: they follow the figures."""
    return bool(record.results.get("audits"))


def _row(record: Record) -> dict[str, Any]:
    """What is kept of a record; folders of this machine are left out."""
    splits = {
        name: {key: split[key] for key in ("digest", "part")}
        for name, split in record.splits.items()
    }
    row = {"name": record.name, "splits": splits} | {key: getattr(record, key) for key in KEPT}
    if runtime := record.config.get("runtime"):
        row["config"] = record.config | {"runtime": runtime | {"begin_from": ""}}
    return row


def rows(name: str) -> list[Record]:
    """The rows of a grid that are kept."""
    paths = [
        path_of(name, m, s) for m, s in itertools.product(GRIDS[name].methods, GRIDS[name].seeds)
    ]
    kept = [files.read_json(path) for path in paths if path.is_file()]
    return [Record(**each, metrics=[], tsne=None, images={}) for each in kept]


def tables(names: Sequence[str]) -> Iterator[str]:
    """Writes the tables and plots of grids; yields a line for each."""
    text = PAGE.read_text()
    for name in names:
        if records := rows(name):
            table = compare.markdown(records, [*FIGURES, compare.AUDITS])
            text = replaced(text, name, table)
            yield f"{name}: {len(records)} rows"
            if len(records) > len(ALL):
                compare.write_plot(records, ROWS / f"{name}.png")
    with files.atomic_write(PAGE) as file:
        file.write(text.encode())


def replaced(text: str, name: str, table: str) -> str:
    """The page with another table between the marks of a grid. ValueError without the marks."""
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
    found = re.compile(f"({re.escape(begin)}).*?({re.escape(end)})", re.S)
    if not found.search(text):
        raise ValueError(f"{PAGE} lacks the marks {begin.strip()} and {end.strip()}.")
    return found.sub(lambda match: f"{match[1]}\n{table}\n{match[2]}", text)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this module's docstring."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("results.py", description=__doc__, formatter_class=form)
    parser.add_argument("--only", nargs="+", metavar="GRID", help=f"some of {', '.join(GRIDS)}")
    parser.add_argument("--tables", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, default=Path("runs/results"), help="for the workdirs")
    args = parser.parse_args(argv)
    chosen = args.only or list(GRIDS)
    for name in chosen:
        if name not in GRIDS:
            raise unknown_name("grid", name, GRIDS)
    for name in chosen if not args.tables else ():
        run(name, args.out)
    print("\n".join(tables(chosen)))


if __name__ == "__main__":
    cli.run_with_clear_errors(main)
