"""Writes what audits found of bundled models into the package, so that demos need not do it again.

    python launch/ship_audits.py runs/demo

The run is one on bundled models, such as that of the demo. Its quick audits of all models but the
unlearned one are added to l2l_jax/weights/bundled/audits.json; what is there of other runs stays.
Do it again when a bundled model, an audit, or its arguments in the quick set change.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from l2l_jax.engine import auditing  # noqa: E402
from l2l_jax.engine.run import opened  # noqa: E402
from l2l_jax.lib import cli, files  # noqa: E402


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    found = dict(auditing.shipped())
    for folder in parser.parse_args(argv).runs:
        with opened(folder, ("quick",)) as (experiment, outcome):
            found |= auditing.shared_records(experiment, outcome)
    lines = [f"{json.dumps(key)}: {json.dumps(found[key])}" for key in sorted(found)]
    with files.atomic_write(auditing.SHIPPED) as file:
        file.write("{\n{}\n}\n".replace("{}", ",\n".join(lines)).encode())
    print(f"{len(found)} records, {auditing.SHIPPED.stat().st_size:,} bytes: {auditing.SHIPPED}")


if __name__ == "__main__":
    cli.run_with_clear_errors(main)
