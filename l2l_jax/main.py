"""python -m l2l_jax.main --config configs/fashion_mnist.py --workdir runs/demo [--config.key=value]

Only flags are read here; a notebook calls l2l_jax.run(config, workdir).
"""

from typing import Any

from l2l_jax.lib import cli


def main(config: Any, given: Any) -> None:
    """Joins the other processes if there are any, then runs the experiment."""
    from l2l_jax import processes
    from l2l_jax.engine.run import run

    processes.begin(given.distributed, given.join_timeout, given.require)
    run(config, given.workdir)


def start() -> None:
    """Parses the flags and calls `main`. Importing takes seconds: Ctrl-C is one line by then."""
    from l2l_jax import flags

    flags.run(main)


if __name__ == "__main__":
    cli.end_at_once_on_interrupt()
    cli.run_with_clear_errors(start)
