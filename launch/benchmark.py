"""Times one train step of a config, or its input: the command line of l2l_jax/benchmark.py.

python launch/benchmark.py --config configs/fashion_mnist.py
"""

from l2l_jax import benchmark
from l2l_jax.lib import cli

if __name__ == "__main__":
    cli.run_with_clear_errors(benchmark.main)
