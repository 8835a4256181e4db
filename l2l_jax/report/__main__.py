"""Writes the page of a run again, or a page that compares several runs.

python -m l2l_jax.report runs/demo
python -m l2l_jax.report runs/*                              # runs/report.html
python -m l2l_jax.report runs/a runs/b --out compared.html
python -m l2l_jax.report runs/* --markdown fid,psnr,audits --plot tradeoff.png
"""

import argparse
import sys
from pathlib import Path

from l2l_jax.lib import cli
from l2l_jax.lib.text import one_line
from l2l_jax.report import compare, page
from l2l_jax.report.collect import collect, collect_all


def main(argv: list[str] | None = None) -> None:
    """The command line of this module's docstring."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog=cli.program("l2l_jax.report"),
        description=cli.described(__doc__, "l2l_jax.report"),
        formatter_class=form,
    )
    parser.add_argument("workdirs", type=Path, nargs="+", metavar="WORKDIR")
    parser.add_argument(
        "--out", type=Path, metavar="FILE",
        help="the page; by default report.html in the workdir, or in the folder above all workdirs",
    )  # fmt: skip
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also save the FID plot as PNG")
    parser.add_argument(
        "--markdown", nargs="?", const="", metavar="METRIC,METRIC",
        help="print the tables, with these figures or all, and write no page; audits: their table",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if len(args.workdirs) == 1:
        runs, left_out = {args.workdirs[0]: collect(args.workdirs[0])}, {}
    else:
        runs, left_out = collect_all(args.workdirs)
    for folder, reason in left_out.items():
        print(f"left out: {one_line(str(folder))}: {reason}", file=sys.stderr)
    if args.markdown is not None:
        metrics = list(filter(None, args.markdown.split(",")))
        print(compare.markdown(list(runs.values()), metrics), end="")
    elif len(args.workdirs) == 1:
        print(page.write(args.workdirs[0], args.out))
    else:
        print(compare.write(runs, left_out, args.out))
    if args.plot:
        compare.write_plot(list(runs.values()), args.plot)


if __name__ == "__main__":
    cli.run_with_clear_errors(main)
