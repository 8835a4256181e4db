"""Evaluates the last checkpoint of a workdir again and rewrites results.json and report.html.

python -m l2l_jax.evaluate --workdir runs/demo
"""

import argparse
from pathlib import Path

from l2l_jax import processes
from l2l_jax.lib import cli


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=cli.program("l2l_jax.evaluate"), description=cli.described(__doc__, "l2l_jax.evaluate")
    )
    parser.add_argument("--workdir", type=Path, required=True)
    processes.add_arguments(parser)
    given = parser.parse_args(argv)
    from l2l_jax.engine.run import evaluate_again  # after --help, because importing takes seconds

    processes.begin(given.distributed, given.join_timeout, given.require)
    evaluate_again(given.workdir)


if __name__ == "__main__":
    cli.end_at_once_on_interrupt()
    cli.run_with_clear_errors(main)
