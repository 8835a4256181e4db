"""Audits a finished run: attacks its model and says whether the forgetting holds.

python -m l2l_jax.audit --workdir runs/demo
python -m l2l_jax.audit --workdir runs/demo --only relearn,probe

The audits are those of the run's config; if it names none, the quick ones. What is known already is
not measured again. Writes results.json and report.html.
"""

import argparse
from pathlib import Path

from l2l_jax import processes
from l2l_jax.lib import cli


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=cli.program("l2l_jax.audit"),
        description=cli.described(__doc__, "l2l_jax.audit"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--only", default="", metavar="AUDIT,AUDIT", help="or quick, or all")
    processes.add_arguments(parser)
    given = parser.parse_args(argv)
    from l2l_jax.engine.run import audit_again  # after --help, because importing takes seconds

    processes.begin(given.distributed, given.join_timeout, given.require)
    audit_again(given.workdir, tuple(name for name in given.only.split(",") if name))


if __name__ == "__main__":
    cli.end_at_once_on_interrupt()
    cli.run_with_clear_errors(main)
