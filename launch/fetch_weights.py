"""Downloads official weights: the command line of l2l_jax/weights/fetch.py.

python launch/fetch_weights.py --feature-networks
"""

from l2l_jax.lib import cli
from l2l_jax.weights import fetch

if __name__ == "__main__":
    cli.run_with_clear_errors(fetch.main)
