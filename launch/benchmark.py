"""Times one train step of a config, its input, or PyTorch beside this project.

python launch/benchmark.py --config configs/fashion_mnist.py
python launch/benchmark.py input
python launch/benchmark.py peers --small            needs PyTorch; see launch/peers/measure.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from l2l_jax import benchmark
from l2l_jax.lib import cli


def main() -> None:
    """Runs the command line of `peers`, or that of l2l_jax/benchmark.py."""
    if sys.argv[1:2] != ["peers"]:
        benchmark.main()
        return
    from launch.peers import measure

    measure.main(sys.argv[2:])


if __name__ == "__main__":
    cli.run_with_clear_errors(main)
