"""Times one train step of a config (compilation, seconds, images/s, FLOP/s, memory), or its input.

    python -m l2l_jax.benchmark --config configs/fashion_mnist.py
    python -m l2l_jax.benchmark --config configs/mae_imagenet.py --model size=base --batch 8
    python -m l2l_jax.benchmark --config configs/fashion_mnist.py --against scan=True
    python -m l2l_jax.benchmark --config configs/mage_imagenet.py --batch 2 --count --tokens views=0
    python -m l2l_jax.benchmark input
    python -m l2l_jax.benchmark input --folder photographs --size 256
    python -m l2l_jax.benchmark input --config configs/mae_imagenet.py:smoke --steps 20
    python -m l2l_jax.benchmark input --config configs/mae_imagenet.py --demand

The step gets random images (or tokens); neither a data set nor TensorFlow is needed. --against
builds the same step with other model arguments and times the two steps in turn, so that their ratio
is valid even if the speed of the machine drifts. --count runs nothing: it prints the multiply-adds
of the step according to XLA's cost analysis.

`input` compares this project's loader with random crops and flips against a plain loop over Pillow.
It measures CPU seconds, so that other work on the machine does not count, and measures all
pipelines in turn in every round, and then the loader with more and more threads by the clock. With
--config it trains for some steps in a temporary workdir and prints the share of the time that the
steps waited for data; with --demand it runs nothing and prints what hosts of accelerators would
take, from the published peaks of their chips.
"""

import argparse
import contextlib
import itertools
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from l2l_jax.data import fast_resize, image_cache, image_folder, images, loader
from l2l_jax.engine import token_bank
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.experiment import without_data
from l2l_jax.engine.outcome import run_phases
from l2l_jax.engine.plan import Plan, resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.engine.step import Step, make_update, shard_update
from l2l_jax.engine.train import train
from l2l_jax.lib import cli, flops, hosts, preemption, sharding, trees
from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.types import Source

MODULE = "l2l_jax.benchmark"
BATCH = 32  # images in a batch of `input`
SCALE = (0.2, 1.0)  # share of an image's area that a random crop of `input` covers
PHOTOGRAPHS = 400, 500, 375  # number, width and height of the synthetic photographs of `input`
HOSTS = {"4 chips of TPU v5e": 4 * 197e12, "8 GPUs of H100": 8 * 989e12}  # FLOP/s in bfloat16
IDLE = 0.005  # a process that uses fewer CPU seconds in 0.1 s does nothing


def abstract_step(plan: Plan, phase: str, batch: int) -> tuple[Step, tuple[Any, ...], int]:
    """(the step as a pure function, the shapes of its arguments, its number of images)."""
    bench = without_data(plan, Path())
    rule, template = bench.update_rule(phase), bench.model.template
    fixed = rule.fixed(template, template, token_bank.abstract_noise(bench, phase))
    images = dict.fromkeys(rule.method.SIDES, token_bank.abstract_images(bench, batch))
    update = make_update(rule, plan.phases[phase].tasks[0], bench.mesh)
    return update, (jax.eval_shape(rule.init, template), fixed, images), batch * len(images)


def count(plan: Plan, phase: str, batch: int) -> None:
    """Prints the multiply-adds of a step; nothing is compiled, no array is made."""
    update, given, total = abstract_step(plan, phase, batch)
    analysis = jax.jit(update).lower(*given).cost_analysis()
    assert analysis, "XLA analyses the cost of every program"
    xla = analysis["flops"] / 2 / total
    products = flops.count(update, *given) / 2 / total
    print(f"XLA: {xla / 1e9:.1f} G multiply-adds an image (half of all its operations)")
    print(f"of matrix products and convolutions alone: {products / 1e9:.1f} G")


def build(plan: Plan, phase: str, batch: int) -> tuple[Any, list[Any], float]:
    """(compiled step, its arguments, its FLOPs); compiled for the mesh of the plan."""
    bench = without_data(plan, Path())
    rule, params = bench.update_rule(phase), bench.initial_params()
    state = bench.initial_state(phase, params)
    rng, codes = np.random.default_rng(0), getattr(bench.model, "codes", 0)

    def draw(like: jax.ShapeDtypeStruct) -> np.ndarray:
        high = 256 if like.dtype == np.uint8 else codes
        return rng.integers(0, high, like.shape, like.dtype)

    noise = token_bank.abstract_noise(bench, phase)
    bank = jax.device_put(draw(noise), sharding.replicated(bench.mesh)) if noise else None
    fixed = rule.fixed(params, params, bank)
    rows = {side: draw(token_bank.abstract_images(bench, batch)) for side in rule.method.SIDES}
    images = jax.device_put(rows, sharding.batch_sharding(bench.mesh))
    update = make_update(rule, plan.phases[phase].tasks[0], bench.mesh)
    work = flops.count(update, bench.abstract_state(phase), fixed, images)
    step: Any = shard_update(update, state, fixed, rule.method.SIDES, bench.mesh)
    started = time.perf_counter()
    program = step.lower(state, fixed, images).compile()
    seconds = time.perf_counter() - started
    memory = program.memory_analysis()
    temporary, held = memory.temp_size_in_bytes / 2**20, memory.argument_size_in_bytes / 2**20
    print(f"  {trees.count(params):,} parameters, {work / 1e9:.1f} GFLOP a step, compiled in")
    print(f"  {seconds:.1f} s, {temporary:.0f} MiB of temporaries, {held:.0f} MiB of arguments")
    return program, [state, fixed, images], work


def run(program: Any, arguments: list[Any]) -> float:
    """Seconds of one step; replaces the state in `arguments` by the next one."""
    started = time.perf_counter()
    arguments[0], metrics = program(*arguments)
    jax.block_until_ready((arguments[0], metrics))
    return time.perf_counter() - started


def make_photographs(folder: Path) -> str:
    """Writes synthetic photographs of two classes into a folder; returns a description of them.

    Smooth structures of five sizes, correlated in colour, and grain, so that JPEG of quality 90
    takes about as many bytes (94 kB) as for real photographs of this size.
    """
    count, width, height = PHOTOGRAPHS
    for number in range(count):
        rng, pixels = np.random.default_rng(number), np.full((height, width, 3), 128.0)
        for cells, amplitude in ((3, 60), (8, 35), (24, 20), (80, 16), (160, 8)):
            coarse = rng.normal(0, 0.5, (cells * height // width + 2, cells + 2, 3))
            coarse += coarse.mean(axis=2, keepdims=True)
            for channel in range(3):
                layer = Image.fromarray(coarse[..., channel].astype(np.float32))
                large = layer.resize((width, height), Image.Resampling.BICUBIC)
                pixels[..., channel] += amplitude * np.asarray(large)
        pixels += rng.normal(0, 14, (height, width, 1))
        path = folder / f"class{number % 2}" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=90)
    size = statistics.mean(p.stat().st_size for p in folder.rglob("*.jpg")) / 1e3
    return (
        f"{count} synthetic photographs (smooth structures and grain), {width}x{height}, JPEG of "
        f"quality 90, {size:.0f} kB"
    )


def plain(paths: list[Path], size: int) -> Iterator[np.ndarray]:
    """An endless plain loop over Pillow: open, crop, resize, flip, normalise, stack."""
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    std = np.array([0.229, 0.224, 0.225], np.float32)
    rng, batch = random.Random(0), []
    while True:
        for path in rng.sample(paths, len(paths)):
            with Image.open(path) as file:
                image = file.convert("RGB")
            box = _box(*image.size, rng)
            image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
            if rng.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            batch.append((np.asarray(image, np.float32) / 255 - mean) / std)
            if len(batch) == BATCH:
                yield np.stack(batch)
                batch = []


def _box(width: int, height: int, rng: random.Random) -> tuple[int, int, int, int]:
    """A random crop (left, top, right, bottom), drawn as images.random_crop draws it."""
    for _ in range(10):
        area = width * height * rng.uniform(*SCALE)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.randint(0, width - w), rng.randint(0, height - h)
            return left, top, left + w, top + h
    return 0, 0, width, height


def seconds(stream: Iterator[np.ndarray], batches: int) -> float:
    """CPU seconds of a number of batches, including what its threads read ahead meanwhile."""
    before = _idle()
    for _ in itertools.islice(stream, batches):
        pass
    return _idle() - before


def _idle() -> float:
    """Waits until this process and its children are idle; returns their CPU seconds so far."""
    while True:
        before = _cpu()
        time.sleep(0.1)
        if _cpu() - before < IDLE:
            return before


def _cpu() -> float:
    return time.process_time() + sum(os.times()[2:4])


def streams(source: Source, size: int, threads: int) -> dict[str, Iterator[np.ndarray]]:
    """{name: endless batches} of this project's loader: every cache with every resizer."""
    indices, made = np.arange(len(source.keys)), {}
    resizers = [r for r in images.RESIZERS if r == "pillow" or _fast_resize_installed()]
    for cache, resize in itertools.product(image_cache.KINDS, resizers):
        cached = image_cache.cached({"train": source}, {"train": indices}, cache)["train"]
        picked: Any = loader.Subset(cached, indices.tolist())
        augment = images.augmentation(size, SCALE, True, resize)
        host = loader.Host(threads=threads)
        stream = loader.train_batches(picked, augment, BATCH, 0, 0, host)
        made[f"cache {cache or 'none'}, resize {resize}"] = stream
    return made


def _fast_resize_installed() -> bool:
    try:
        fast_resize.check_installed()
    except ConfigError:
        return False
    return True


def measure_input(source: Source, paths: list[Path], args: argparse.Namespace) -> None:
    """Prints images/s per core for every pipeline, and its speed relative to the plain loop."""
    pipelines: dict[str, Any] = {"plain Pillow": plain(paths, args.size)}
    pipelines |= streams(source, args.size, args.threads)
    batches = -(-args.images // BATCH)
    for name, stream in pipelines.items():  # a first pass that is not timed fills the caches
        seconds(stream, -(-2 * len(paths) // BATCH) if "none" not in name else 2)
    times: dict[str, list[float]] = {name: [] for name in pipelines}
    for _ in range(args.rounds):
        for name, stream in pipelines.items():
            times[name].append(seconds(stream, batches))
    for stream in pipelines.values():
        stream.close()
    for name, measured in times.items():
        rate = batches * BATCH / statistics.median(measured)
        ratios = [a / b for a, b in zip(times["plain Pillow"], measured, strict=True)]
        print(f"{name:30} {rate:6.0f} images/s of a core, {statistics.median(ratios):.2f} times "
              f"plain Pillow (min {min(ratios):.2f}, max {max(ratios):.2f})")  # fmt: skip


def measure_threads(source: Source, args: argparse.Namespace) -> None:
    """Prints images/s with 1, 2, 4, ... threads, up to one for each core, by the clock."""
    indices = np.arange(len(source.keys)).tolist()
    augment = images.augmentation(args.size, SCALE, True)
    batches, threads = -(-args.images // BATCH), 1
    while threads <= hosts.cores():
        host = loader.Host(threads=threads)
        stream = loader.train_batches(loader.Subset(source, indices), augment, BATCH, 0, 0, host)
        with contextlib.closing(stream):
            next(stream)
            started = time.perf_counter()
            for _ in itertools.islice(stream, batches):
                pass
            rate = batches * BATCH / (time.perf_counter() - started)
        print(f"{threads} threads: {rate:.0f} images/s (no cache, resize pillow)")
        threads = min(2 * threads, hosts.cores()) if threads < hosts.cores() else threads + 1


def print_demand(config: dict[str, Any]) -> None:
    """Prints how many images/s hosts of accelerators take in the last phase of a config."""
    plan = resolve(config)
    phase = [*plan.phases][-1]
    update, given, total = abstract_step(plan, phase, plan.phases[phase].batch_size)
    work = flops.count(update, *given) / total
    print(f"{phase}: {work / 1e9:.1f} GFLOP an image. At {flops.EFFICIENCY:.0%} of the peak take")
    for name, peak in HOSTS.items():
        print(f"  {name}: {flops.EFFICIENCY * peak / work:,.0f} images/s")


def measure_wait(args: argparse.Namespace) -> None:
    """Trains some steps of every phase of a config; prints the share of time waiting for data."""
    config = complete_config(cli.load_config(args.config))
    for phase in config["phases"]:
        config[phase]["steps"] = args.steps
    config["data"]["cache"] = args.cache
    with tempfile.TemporaryDirectory() as folder:
        experiment = preflight(resolve(config), Path(folder) / "run", preemption.StopSignal())
        run_phases(experiment, train)
        records = list(experiment.workdir.read_metrics())
    for phase in config["phases"]:
        last = [record for record in records if record["phase"] == phase][-1]
        print(f"{phase}: {last['data_wait']:.1%} of the time was spent waiting for data, "
              f"{last['examples_per_second']:.0f} images/s, {args.steps} steps, "
              f"cache {args.cache or 'none'}")  # fmt: skip


def main_input(argv: list[str]) -> None:
    """The command line of `input`. argv: what follows that word."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog=f"{cli.program(MODULE)} input",
        description=cli.described(__doc__, MODULE),
        formatter_class=form,
    )
    parser.add_argument("--images", type=int, default=960, help="per pipeline and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="images, one sub-folder per class")
    parser.add_argument("--config", default="")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--demand", action="store_true", help="with --config: run nothing")
    parser.add_argument("--cache", default="", choices=image_cache.KINDS, help="with --config")
    args = parser.parse_args(argv)
    if args.config and args.demand:
        print_demand(complete_config(cli.load_config(args.config)))
        return
    if args.config:
        measure_wait(args)
        return
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["L2L_CACHE"] = f"{scratch}/cache"
        folder = args.folder or Path(scratch) / "photographs"
        description = f"the images of {folder}" if args.folder else make_photographs(folder)
        by_class = image_folder.keys_by_class(folder)
        source = image_folder.source(folder, by_class, list(by_class), str(folder))
        print(
            f"{description}; random crops of 0.2 to 1 of the area to {args.size}x{args.size}, flips"
        )
        print(
            f"plain Pillow: one thread, float32. Ours: {args.threads} threads, uint8 (a step "
            f"normalises). {args.rounds} rounds of {args.images} images, batches of {BATCH}"
        )
        measure_input(source, [folder / key for key in source.keys], args)
        measure_threads(source, args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=cli.program(MODULE),
        description=cli.described(__doc__, MODULE),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", required=True)
    add("--phase", default="", help="a phase of the config; by default its last")
    add("--batch", type=int, default=0, help="images of each side; 0 = the config's")
    add("--model", nargs="*", default=[], metavar="KEY=VALUE", help="model arguments")
    add("--against", nargs="*", default=[], metavar="KEY=VALUE", help="those of a second model")
    add("--tokens", nargs="*", default=[], metavar="KEY=VALUE", help="keys of data.token_cache")
    add("--count", action="store_true", help="count multiply-adds and run nothing")
    add("--steps", type=int, default=10, help="steps that are timed")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command line of this module's docstring."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["input"]:
        main_input(argv[1:])
        return
    args = _parser().parse_args(argv)
    config = complete_config(cli.load_config(args.config))
    config["model"]["args"].update(cli.assignments(args.model, "--model"))
    config["data"]["token_cache"].update(cli.assignments(args.tokens, "--tokens"))
    plan = resolve(config)
    phase = args.phase or [*plan.phases][-1]
    if phase not in plan.phases:
        raise unknown_name("phase of this config", phase, plan.phases)
    config[phase]["stop"] = ""  # it compares images, and there is no data here
    plan = resolve(config)
    batch = args.batch or plan.phases[phase].batch_size
    if args.count:
        count(plan, phase, batch)
        return
    variants = {"step": {}} | (
        {" ".join(args.against): cli.assignments(args.against, "--against")} if args.against else {}
    )
    built = {}
    for name, changes in variants.items():
        print(f"{name}:")
        model = config["model"] | {"args": config["model"]["args"] | changes}
        built[name] = build(resolve(config | {"model": model}), phase, batch)
        run(*built[name][:2])
    seconds = {name: [] for name in built}
    for _ in range(args.steps):
        for name, (program, arguments, _) in built.items():
            seconds[name].append(run(program, arguments))
    sides = len(plan.phases[phase].method.SIDES)
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
    cli.run_with_clear_errors(main)
