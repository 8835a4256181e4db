"""Shows finished runs in a browser: paint what is hidden, and compare what the models make of it.

python -m l2l_jax.demo runs/demo
python -m l2l_jax.demo runs/l2l runs/undo --port 8000

Needs the extra [demo] (pip install 'l2l_jax[demo]'). The page is served to this machine only, loads
nothing from elsewhere, and sends nothing. Ctrl-C ends it.
"""

import argparse
from pathlib import Path

from l2l_jax.lib import cli

MODULE = "l2l_jax.demo"
PORT = 7860


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=cli.program(MODULE),
        description=cli.described(__doc__, MODULE),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="workdirs")
    parser.add_argument("--port", type=int, default=PORT, help=f"default {PORT}; 0 = any free one")
    parser.add_argument("--partial", action="store_true", help="accept runs that are not finished")
    given = parser.parse_args(argv)
    from l2l_jax.demo import serve  # after --help, because importing takes seconds

    serve.serve(given.runs, given.port, given.partial)


if __name__ == "__main__":
    cli.end_at_once_on_interrupt()
    cli.run_with_clear_errors(main)
