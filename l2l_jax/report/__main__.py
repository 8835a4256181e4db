"""Writes the page of a run again, or one page that compares several runs.

python -m l2l_jax.report runs/demo
python -m l2l_jax.report runs/a runs/b runs/c --out compared.html
"""

import argparse
from pathlib import Path

from l2l_jax.lib import cli
from l2l_jax.lib.errors import ConfigError
from l2l_jax.report import compare, page


def main(argv: list[str] | None = None) -> None:
    """The command line of this module's docstring."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("l2l_jax.report", description=__doc__, formatter_class=form)
    parser.add_argument("workdirs", type=Path, nargs="+", metavar="WORKDIR")
    parser.add_argument("--out", type=Path, help="of one run: report.html in its folder")
    args = parser.parse_args(argv)
    if len(args.workdirs) == 1:
        print(page.write(args.workdirs[0], args.out))
    elif args.out is None:
        raise ConfigError("Several runs make one page: say where it goes, --out compared.html.")
    else:
        print(compare.write(args.workdirs, args.out))


if __name__ == "__main__":
    cli.explained(main)
