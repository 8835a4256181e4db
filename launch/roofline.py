"""FLOPs, bytes and the shortest time of a train step of the large configs, by arithmetic.

    python launch/roofline.py           some minutes on a CPU; nothing is compiled or downloaded

For each config: one device, the batch of the config (of all sides), activations in bfloat16. The
bytes are those of the factors and results of all matrix products and convolutions, plus the update:
AdamW reads a parameter, its gradient and two moments, and writes three of them, in float32. The
time is the larger of FLOPs / peak and bytes / bandwidth. It is no measurement.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from l2l_jax import benchmark  # noqa: E402
from l2l_jax.engine.complete import complete_config  # noqa: E402
from l2l_jax.engine.plan import resolve  # noqa: E402
from l2l_jax.lib import cli, flops, trees  # noqa: E402

CONFIGS = (
    "fashion_mnist", "mae_imagenet", "mae_imagenet:large", "mae_imagenet:huge", "mage_imagenet",
    "diffusion_places365",
)  # fmt: skip
UPDATE_BYTES = 7 * 4  # of a trained parameter
DEVICES = {"H200": (989e12, 4.8e12), "H100": (989e12, 3.35e12)}  # bfloat16 FLOP/s, bytes/s


def main() -> None:
    """Prints a table in markdown."""
    columns = ["config", "images", "TFLOP", "GB", "FLOP/byte", *(f"{x}, ms" for x in DEVICES)]
    print(f"| {' | '.join(columns)} |\n|---|{'--:|' * (len(columns) - 1)}")
    for name in CONFIGS:
        config = complete_config(cli.load_config(name))
        phase = [*resolve(config).phases][-1]
        config["model"]["args"]["dtype"] = "bfloat16"
        plan = resolve(config)
        update, given, images = benchmark.abstract_step(plan, phase, plan.phases[phase].batch_size)
        work = flops.count(update, *given)
        moved = flops.count_bytes(update, *given) + UPDATE_BYTES * trees.count(given[0].student)
        times = [max(work / peak, moved / band) for peak, band in DEVICES.values()]
        row = [f"`{name}`", f"{images:,}", f"{work / 1e12:.2f}", f"{moved / 1e9:.1f}"]
        row += [f"{work / moved:.0f}", *(f"{1e3 * each:.2f}" for each in times)]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    cli.run_with_clear_errors(main)
