"""python -m l2l_jax.report runs/demo [--out page.html]: writes the page of a run again."""

import argparse
from pathlib import Path

from l2l_jax.lib import cli
from l2l_jax.report import page


def main(argv: list[str] | None = None) -> None:
    """The command line of this module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m l2l_jax.report", description=__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--out", type=Path, help="default: report.html in the run's folder")
    args = parser.parse_args(argv)
    print(page.write(args.workdir, args.out))


if __name__ == "__main__":
    cli.explained(main)
