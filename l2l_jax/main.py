"""python -m l2l_jax.main --config configs/fashion_mnist.py --workdir runs/demo [--config.key=value]

Only flags are read here; a notebook calls l2l_jax.run.run(config, workdir).
"""

import sys

from absl import flags
from ml_collections import config_flags

from l2l_jax.lib import cli

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "The experiment: FILE.py, or FILE.py:FORM.")
flags.DEFINE_string("workdir", None, "Where everything goes; the same one continues a run.")
flags.DEFINE_string(
    "distributed", "", "One of several processes: 'auto' (TPU pod, Slurm), or HOST:PORT,COUNT,RANK."
)
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
    """Distributed initialisation, then the run."""
    if len(argv) > 1:
        sys.exit(f"error: {argv[1:]} belong to no flag. Overrides look like --config.seed=1.")
    if FLAGS.distributed:
        join(FLAGS.distributed)
    from l2l_jax.run import run  # after the flags: --help should not wait for JAX

    run(FLAGS.config, FLAGS.workdir)


def join(spec: str) -> None:
    """Meets the other processes; must come before JAX is used."""
    import jax

    if spec == "auto":
        jax.distributed.initialize()
        return
    coordinator, count, rank = spec.split(",")
    jax.distributed.initialize(coordinator, int(count), int(rank))


if __name__ == "__main__":
    cli.run(main)
