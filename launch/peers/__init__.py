"""This project's networks beside the same networks in PyTorch: `launch/benchmark.py peers`."""
