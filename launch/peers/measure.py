"""Times this project's networks against the same networks in PyTorch, interleaved, in one process.

    python launch/benchmark.py peers --small                      minutes on a CPU
    python launch/benchmark.py peers --only "MAE base" U-Net      items whose names begin so
    python launch/benchmark.py peers                              all, published sizes; for a GPU

Needs PyTorch (the extra [dev]). The PyTorch side (launch/peers/) is written from the papers; tiny
networks of both sides must agree before anything is timed. Each round runs every side once, in
turn. A ratio is PyTorch's time over ours: above 1 ours is faster.

On a CPU everything is float32, and times are CPU seconds, which other work on the machine hardly
disturbs: start it with `taskset -c 0`, so that both sides have one thread. On a GPU JAX computes in
bfloat16 and PyTorch under autocast to bfloat16; --compile (there the default) adds torch.compile.
"""

import argparse
import contextlib
import os
import statistics
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch shares the GPU

import jax
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from l2l_jax.lib import precision
from l2l_jax.lib.errors import ConfigError
from launch.peers import items
from launch.peers.items import Item

PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}  # bfloat16 FLOP/s, as published
Group = Callable[[str], list[Item]]  # dtype -> items that share a network

TINY: dict[str, Group] = {
    "MAE": lambda dtype: items.mae_items("test", 16, 2, dtype),
    "MAGE": lambda dtype: items.mage_items("test", 16, 2, "test", dtype),
    "U-Net": lambda dtype: items.unet_items("test", 16, 2, dtype),
    "judges": lambda dtype: items.judge_items("tiny", 2, 75, dtype),
}
SMALL: dict[str, Group] = {
    "MAE small": lambda dtype: items.mae_items("small", 32, 64, dtype),
    "MAGE small, VQ-GAN": lambda dtype: items.mage_items("small", 32, 32, "small", dtype),
    "U-Net small": lambda dtype: items.unet_items("small", 32, 8, dtype),
    "CLIP tiny, Inception": lambda dtype: items.judge_items("tiny", 8, 75, dtype),
}
PUBLISHED: dict[str, Group] = {
    "MAE base": lambda dtype: items.mae_items("base", 224, 64, dtype),
    "MAE large": lambda dtype: items.mae_items("large", 224, 64, dtype),
    "MAE huge": lambda dtype: items.mae_items("huge", 224, 32, dtype),
    "MAGE base, VQ-GAN": lambda dtype: items.mage_items("base", 256, 32, "published", dtype),
    "U-Net published": lambda dtype: items.unet_items("published", 256, 8, dtype),
    "CLIP h14, Inception": lambda dtype: items.judge_items("h14", 32, 299, dtype),
}


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations have made and that still live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def torch_call(item: Item, device: str, half: bool, compiled: bool) -> Callable[[], torch.Tensor]:
    """A function that makes one call, or one step with AdamW, and returns its output or loss."""
    module: Any = item.module.to(device)
    tensors = tuple(tensor.to(device) for tensor in item.tensors)
    context = torch.autocast(device, torch.bfloat16) if half else contextlib.nullcontext()
    theirs = torch.compile(item.theirs) if compiled else item.theirs
    if not item.trains:

        def call() -> torch.Tensor:
            with torch.no_grad(), context:
                return theirs(module, *tensors)

        return call
    trained = [x for x in module.parameters() if x.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=items.RATE, fused=device == "cuda")

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        with context:
            loss = theirs(module, *tensors)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def jax_call(item: Item) -> tuple[Callable[[], Any], Any]:
    """(a function that makes one call and waits for it, XLA's plan of its memory)."""
    program, arguments = item.step()  # a jitted function
    compiled = program.lower(*arguments).compile()

    def call() -> Any:
        made = jax.block_until_ready(compiled(*arguments))
        if item.trains:
            arguments[:2] = made[:2]
            return made[2]
        return made

    return call, compiled.memory_analysis()


def difference(item: Item) -> float:
    """The largest difference of both sides' outputs, relative to the largest value.

    Of a step: that of the losses or of the norms of the gradients. Random outputs, which are
    integers, have none: it is checked that what is visible stays.
    """
    ours = jax.jit(jax.value_and_grad(item.ours) if item.trains else item.ours)(*item.arguments)
    if item.trains:
        theirs = item.theirs(item.module, *item.tensors)
        theirs.backward()
        grads = [x.grad for x in item.module.parameters() if x.grad is not None]
        norm = float(torch.sqrt(sum((x.double() ** 2).sum() for x in grads)))  # type: ignore
        leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(ours[1])]
        ours_norm = float(np.sqrt(sum(np.sum(x**2) for x in leaves)))
        item.module.zero_grad()
        pairs = [(float(ours[0]), float(theirs.detach())), (ours_norm, norm)]
        return max(abs(a - b) / abs(b) for a, b in pairs)
    with torch.no_grad():
        made = item.theirs(item.module, *item.tensors).numpy()
    ours = np.asarray(ours)
    if made.ndim == 2 and made.dtype == np.int64:  # sampled tokens
        shown = ~item.tensors[1].numpy()
        return float(np.any(ours[shown] != made[shown]) or ours.shape != made.shape)
    made = made.transpose(0, 2, 3, 1) if made.ndim == 4 else made
    return float(np.max(np.abs(ours - made)) / np.max(np.abs(made)))


def check_agreement() -> None:
    """ConfigError unless tiny networks of both sides agree in float32."""
    torch.manual_seed(0)
    for group in TINY.values():
        for item in group("float32"):
            found = difference(item)
            if not found <= items.TOLERANCE:
                raise ConfigError(
                    f"{item.name}: JAX and PyTorch differ by {found:.2g}, more than "
                    f"{items.TOLERANCE:g}; nothing is timed."
                )


def timed(call: Callable[[], Any], device: str) -> float:
    """Seconds of one call: by the clock on a GPU, of CPU time otherwise."""
    if device != "cuda":
        started = time.process_time()
        call()
        return time.process_time() - started
    started = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def torch_memory(call: Callable[[], Any], device: str) -> float:
    """MiB of the tensors that live at the peak of one call, beyond what is there before it."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with LiveBytes() as live:
        call()
    return live.peak / 2**20


def measure(item: Item, args: argparse.Namespace, device: str, half: bool) -> Iterator[str]:
    """Yields the lines of one item."""
    ours, plan = jax_call(item)
    sides = {"eager": torch_call(item, device, half, False)}
    if args.compile:
        sides["torch.compile"] = torch_call(item, device, half, True)
    calls = {"JAX": ours, **sides}
    for call in calls.values():
        for _ in range(args.warm):
            timed(call, device)
    memory = torch_memory(sides["eager"], device)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(args.rounds):
        for name, call in calls.items():
            times[name].append(timed(call, device))
    work, mine = item.flops(), statistics.median(times["JAX"])
    words = [f"{item.name}: {work / 1e9:.1f} GFLOP", f"{1e3 * mine:.1f} ms",
             f"{item.images / mine:.1f} images/s", f"{work / mine / 1e9:.0f} GFLOP/s"]  # fmt: skip
    peak = next((x for name, x in PEAKS.items() if name in jax.devices()[0].device_kind), 0.0)
    words += [f"MFU {work / mine / peak:.1%}"] if peak else []
    words += [item.fused] if item.fused and device == "cuda" else []
    yield ", ".join(words)
    for name in sides:
        ratios = [a / b for a, b in zip(times[name], times["JAX"], strict=True)]
        median = 1e3 * statistics.median(times[name])
        yield (f"    {name}: {median:.1f} ms, ratio {statistics.median(ratios):.2f} "
               f"({min(ratios):.2f} to {max(ratios):.2f})")  # fmt: skip
    temporary = plan.temp_size_in_bytes / 2**20
    yield f"    memory beyond the arguments: JAX {temporary:.0f} MiB, eager {memory:.0f} MiB"


def main(argv: list[str]) -> None:
    """The command line of `peers`. argv: what follows that word."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="launch/benchmark.py peers", description=__doc__, formatter_class=form
    )
    gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    boolean = argparse.BooleanOptionalAction
    parser.add_argument("--small", action="store_true", help="small networks, for a CPU")
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of names")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--warm", type=int, default=2, help="calls before, which are not timed")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch on a CPU")
    parser.add_argument("--compile", action=boolean, default=gpu, help="time torch.compile too")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    device, half = ("cuda", precision.modern_gpu()) if gpu else ("cpu", False)
    check_agreement()
    print(f"Tiny networks of both sides agree to {items.TOLERANCE:g}.", flush=True)
    kind = jax.devices()[0].device_kind
    print(f"{kind}, {'bfloat16' if half else 'float32'}, jax {jax.__version__}, torch "
          f"{torch.__version__}, {args.rounds} rounds", flush=True)  # fmt: skip
    wanted = tuple(args.only) or ("",)
    for name, group in (SMALL if args.small else PUBLISHED).items():
        if not any(name.startswith(each) or each in name for each in wanted):
            continue
        torch.manual_seed(0)
        for item in group("bfloat16" if half else "float32"):
            for line in measure(item, args, device, half):
                print(line, flush=True)
