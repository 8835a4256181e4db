"""Times one train step of a config: compilation, seconds, images/s, FLOP/s, memory.

    python launch/benchmark.py --config configs/fashion_mnist.py
    python launch/benchmark.py --config configs/mae_imagenet.py --model size=base --batch 8
    python launch/benchmark.py --config configs/fashion_mnist.py --against scan=True
    python launch/benchmark.py --config configs/mage_imagenet.py --batch 2 --count --tokens views=0

Random images (or tokens), no data set, no TensorFlow. --against builds the same step with other
model arguments and times the two in turn, so that the ratio holds when the machine's speed drifts.
--count runs nothing: it prints what XLA's cost analysis says of the step, in multiply-adds.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from l2l_jax import experiment, schema
from l2l_jax import step as steps
from l2l_jax.find import find
from l2l_jax.lib import cli, flops, preemption, sharding, trees


def count(config: dict, phase: str, batch: int) -> None:
    """Prints the multiply-adds of a step; nothing is compiled or even initialised."""
    mesh, model = experiment.build(config)
    bench = experiment.Experiment(config, Path(), mesh, model, {}, {}, preemption.Flag())
    recipe = bench.recipe(phase)
    state = jax.eval_shape(recipe.init, model.template)
    fixed = recipe.fixed(model.template, model.template, bench.abstract_noise(phase))
    images = dict.fromkeys(recipe.method.SIDES, bench.abstract_images(batch))
    update = steps.make_update(recipe, *bench.task(config[phase]["tasks"][0]), mesh)
    every = batch * len(images)
    xla = jax.jit(update).lower(state, fixed, images).cost_analysis()["flops"] / 2 / every
    products = flops.count(update, state, fixed, images) / 2 / every
    print(f"XLA: {xla / 1e9:.1f} G multiply-adds an image (half of all its operations)")
    print(f"of matrix products and convolutions alone: {products / 1e9:.1f} G")


def build(config: dict, phase: str, batch: int) -> tuple[Any, list, float]:
    """(step, its arguments, its FLOPs); the step is compiled for the mesh of the config."""
    mesh, model = experiment.build(config)
    bench = experiment.Experiment(config, Path(), mesh, model, {}, {}, preemption.Flag())
    recipe, params = bench.recipe(phase), bench.start()
    state = bench.initial_state(phase, params)
    rng, ids = np.random.default_rng(0), getattr(model, "codes", 0)

    def drawn(like: jax.ShapeDtypeStruct) -> np.ndarray:
        return rng.integers(0, 256 if like.dtype == np.uint8 else ids, like.shape, like.dtype)

    noise = bench.abstract_noise(phase)
    bank = noise and jax.device_put(drawn(noise), sharding.replicated(mesh))
    fixed = recipe.fixed(params, params, bank)
    rows = {s: drawn(bench.abstract_images(batch)) for s in recipe.method.SIDES}
    images = jax.device_put(rows, sharding.batch(mesh))
    update = steps.make_update(recipe, *bench.task(config[phase]["tasks"][0]), mesh)
    work = flops.count(update, bench.abstract_state(phase), fixed, images)
    compiled = steps.shard_update(update, state, fixed, recipe.method.SIDES, mesh)
    began = time.perf_counter()
    program = compiled.lower(state, fixed, images).compile()
    seconds = time.perf_counter() - began
    memory = program.memory_analysis()
    temporary, held = memory.temp_size_in_bytes / 2**20, memory.argument_size_in_bytes / 2**20
    print(f"  {trees.count(params):,} parameters, {work / 1e9:.1f} GFLOP a step, compiled in")
    print(f"  {seconds:.1f} s, {temporary:.0f} MiB of temporaries, {held:.0f} MiB of arguments")
    return program, [state, fixed, images], work


def run(program: Any, arguments: list) -> float:
    """Seconds of one step; the state moves on."""
    began = time.perf_counter()
    arguments[0], metrics = program(*arguments)
    jax.block_until_ready((arguments[0], metrics))
    return time.perf_counter() - began


def main(argv: list[str] | None = None) -> None:
    """The command line of this module's docstring."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("benchmark.py", description=__doc__, formatter_class=form)
    parser.add_argument("--config", required=True)
    parser.add_argument("--phase", default="unlearn")
    parser.add_argument(
        "--batch", type=int, default=0, help="images of each side; 0 = the config's"
    )
    parser.add_argument("--model", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--against", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--tokens", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args(argv)
    config = schema.complete(cli.load_config(args.config))
    config["model"]["args"].update(cli.assignments(args.model, "--model"))
    config["data"]["token_cache"].update(cli.assignments(args.tokens, "--tokens"))
    config["weights"] = ""
    batch = args.batch or config[args.phase]["batch_size"]
    if args.count:
        count(config, args.phase, batch)
        return
    variants = {"step": {}} | (
        {" ".join(args.against): cli.assignments(args.against, "--against")} if args.against else {}
    )
    built = {}
    for name, changes in variants.items():
        print(f"{name}:")
        model = config["model"] | {"args": config["model"]["args"] | changes}
        built[name] = build(config | {"model": model}, args.phase, batch)
        run(*built[name][:2])
    seconds = {name: [] for name in built}
    for _ in range(args.steps):
        for name, (program, arguments, _) in built.items():
            seconds[name].append(run(program, arguments))
    sides = len(find("method", config[args.phase]["method"]).SIDES)
    print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, batch {batch} x {sides} sides")
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name}: median {1e3 * median:.1f} ms (min {1e3 * min(times):.1f}, max "
              f"{1e3 * max(times):.1f}), {batch * sides / median:.0f} images/s, "
              f"{built[name][2] / median / 1e9:.1f} GFLOP/s")  # fmt: skip
    if args.against:
        first, second = seconds.values()
        ratios = [b / a for a, b in zip(first, second, strict=True)]
        print(f"{' '.join(args.against)} takes {statistics.median(ratios):.2f} times as long "
              f"(min {min(ratios):.2f}, max {max(ratios):.2f})")  # fmt: skip


if __name__ == "__main__":
    cli.explained(main)
