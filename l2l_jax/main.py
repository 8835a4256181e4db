"""python -m l2l_jax.main --config configs/fashion_mnist.py --workdir runs/demo [--config.key=value]

Only flags are read here; a notebook calls l2l_jax.run(config, workdir).
"""

from typing import Any

from l2l_jax.lib import cli
from l2l_jax.lib.errors import ConfigError


def main(config: Any, given: Any) -> None:
    """Connects to the other processes if there are any, then runs the experiment."""
    from l2l_jax.engine.run import run

    if given.distributed:
        join(given.distributed)
    run(config, given.workdir)


def start() -> None:
    """Parses the flags and calls `main`. Importing takes seconds: Ctrl-C is one line by then."""
    from l2l_jax import flags

    flags.run(main)


def join(spec: str) -> None:
    """Initialises jax.distributed. spec: 'auto', or HOST:PORT,COUNT,RANK."""
    import jax

    if spec == "auto":
        jax.distributed.initialize()
        return
    words = spec.split(",")
    if len(words) != 3 or not (words[1] + words[2]).isdigit():
        raise ConfigError(f"--distributed is 'auto' or HOST:PORT,COUNT,RANK, not {spec!r}.")
    jax.distributed.initialize(words[0], int(words[1]), int(words[2]))


if __name__ == "__main__":
    cli.end_at_once_on_interrupt()
    cli.run_with_clear_errors(start)
