"""Compiles the train step of a config for TPUs that need not be there, and says what it needs.

    pip install ".[tpu-check]"
    python launch/compile_check.py --topology v5e:2x4 --config configs/mae_imagenet.py
    python launch/compile_check.py --topology v5e:8x8 --config configs/mae_imagenet.py:huge \\
        --fsdp -1 --model scan=True remat=True --batch 256
    python launch/compile_check.py --topology v4:2x2x4 --config configs/mage_imagenet.py --row

It prints the memory of a chip, the FLOPs, the collectives with their bytes, and an estimate of the
time of a step. --topology is the kind of chip and the shape of the slice. --row prints one line of
the table in docs/scale.md. The compiler is that of libtpu; no TPU is looked for. Computation is in
bfloat16, as on TPUs.

The estimate rests on published speeds of a chip (CHIPS) and on one assumption, that matrix products
run at 40 % of the peak. Where XLA overlaps exchange with work, a step takes the longer of the two;
else their sum. Waiting for data is not part of it.
"""

import argparse
import dataclasses
import os
import time
from pathlib import Path
from typing import Any

# Before JAX starts: libtpu else asks a metadata server which slice it is on.
os.environ.update(JAX_PLATFORMS="cpu", TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

import jax
import numpy as np
from jax.experimental import topologies

from l2l_jax.engine import token_bank
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.plan import Plan, resolve
from l2l_jax.engine.step import make_update, shard_update
from l2l_jax.lib import cli, compiled, flops, preemption, sharding
from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.workdir.layout import Workdir


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one chip: Google Cloud's pages on TPU v4 and v5e."""

    accelerator: str  # the name of a slice is this and its number of cores or chips
    memory: float  # bytes
    peak: float  # FLOP/s in bfloat16
    link: float  # bytes/s of one link in one direction; a ring uses two
    cores: int = 1  # in the name of a slice
    layout: str = "default"


CHIPS = {
    "v4": Chip("v4", 32 * 2**30, 275e12, 45e9, 2, "megacore"),
    "v5e": Chip("v5litepod", 16 * 2**30, 197e12, 45e9),
}


@dataclasses.dataclass(frozen=True)
class Result:
    """What the compiled step needs on one chip."""

    chip: Chip
    held: int  # bytes of the state, what is held fixed, and a batch
    temporary: int  # bytes
    work: float  # FLOPs of a step
    moved: dict[str, int]  # {kind of collective: bytes of a step}
    times: dict[str, int]  # {kind of collective: number in a step}
    strangers: list[str]  # collectives on arrays of no parameter's size
    shards: int  # chips that share the parameters
    seconds: float  # of compilation

    @property
    def compute(self) -> float:
        """Seconds of the matrix products."""
        return self.work / (flops.EFFICIENCY * self.chip.peak)

    @property
    def exchange(self) -> float:
        """Seconds of the collectives over a ring of two links; an all-reduce goes round twice."""
        rounds = sum(size * (1 + (kind == "all-reduce")) for kind, size in self.moved.items())
        return rounds / (2 * self.chip.link)


def devices_of(topology: str) -> tuple[Chip, list[Any]]:
    """The chip and the devices of a slice such as v5e:2x4; ConfigError for an unknown one."""
    kind, _, shape = topology.partition(":")
    if kind not in CHIPS:
        raise unknown_name("kind of TPU in --topology", kind, CHIPS)
    chip = CHIPS[kind]
    sides = [int(side) if side.isdigit() else 0 for side in shape.split("x")]
    os.environ["TPU_ACCELERATOR_TYPE"] = f"{chip.accelerator}-{chip.cores * int(np.prod(sides))}"
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=topology, chip_config_name=chip.layout
        )
    except Exception as error:
        if "libtpu" in str(error).lower():
            raise ConfigError(
                'The compiler for TPUs is not installed: pip install ".[tpu-check]".'
            ) from error
        raise ConfigError(
            f"--topology={topology} is no slice that libtpu knows ({str(error).splitlines()[0]}); "
            "try v5e:2x4, v5e:8x8 or v4:2x2x4."
        ) from error
    return chip, list(found.devices)


def check(plan: Plan, phase: str, batch: int, chip: Chip, devices: list[Any]) -> Result:
    """Compiles the step of a phase for the devices. batch: images of each side over all of them."""
    mesh = sharding.make_mesh(plan.config["runtime"]["fsdp"], devices)
    planned, model = plan.phases[phase], plan.model.build()
    sharding.check_batch(batch, mesh, planned.accumulate, "--batch")
    stop, nowhere = preemption.StopSignal(), Workdir(Path())
    experiment = Experiment(plan, nowhere, mesh, model, {}, {}, stop)
    rule, state = experiment.update_rule(phase), experiment.abstract_state(phase)
    params, noise = sharding.abstract_tree(mesh, model.template), None
    if drawn := token_bank.abstract_noise(experiment, phase):
        noise = jax.ShapeDtypeStruct(drawn.shape, drawn.dtype, sharding=sharding.replicated(mesh))
    fixed = rule.fixed(params, params, noise)
    image = token_bank.abstract_images(experiment, batch)
    rows = jax.ShapeDtypeStruct(image.shape, image.dtype, sharding=sharding.batch_sharding(mesh))
    images = dict.fromkeys(rule.method.SIDES, rows)
    update = make_update(rule, planned.tasks[0], mesh)
    work = flops.count(update, state, fixed, images)
    started = time.perf_counter()
    step: Any = shard_update(update, state, fixed, images, mesh)
    program = step.lower(state, fixed, images).compile()
    memory = program.memory_analysis()
    found = compiled.collectives(program.as_text())
    strangers = [x for x in found if not _is_of_parameters(x, params, mesh.shape["fsdp"])]
    return Result(
        chip=chip,
        held=memory.argument_size_in_bytes,
        temporary=memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes,
        work=work / mesh.size,
        moved=compiled.total_bytes(found),
        times={
            kind: sum(x.times for x in found if x.kind == kind) for kind in {x.kind for x in found}
        },
        strangers=[f"{x.kind} of {x.bytes / 2**20:.1f} MiB" for x in strangers],
        shards=mesh.shape["fsdp"],
        seconds=time.perf_counter() - started,
    )


def _is_of_parameters(x: compiled.Instruction, params: Any, shards: int) -> bool:
    """Whether all arrays of a collective have as many values as a parameter, or a part of one.

    A part is one block of a scanned stack, what one of the shards holds, or a sum of a metric.
    """
    sizes = {n for leaf in jax.tree.leaves(params) for n in (leaf.size, leaf.size // leaf.shape[0])}
    sizes |= {n // shards for n in sizes} | {1}
    return {array.size for array in x.outputs} <= sizes


def describe(result: Result) -> str:
    """The result in lines."""
    gib, chip = 2**30, result.chip
    total = result.held + result.temporary
    fits = "fits" if total <= chip.memory else "does not fit"
    moved = ", ".join(
        f"{kind} {size / gib:.3f} GiB in {result.times[kind]}"
        for kind, size in sorted(result.moved.items())
    )
    peak = f"{flops.EFFICIENCY:.0%} of {chip.peak / 1e12:.0f} TFLOP/s"
    longer = max(result.compute, result.exchange)
    return "\n".join(
        (
            f"memory of a chip: {result.held / gib:.2f} GiB of state and batch, "
            f"{result.temporary / gib:.2f} GiB of temporaries; {total / gib:.2f} of "
            f"{chip.memory / gib:.0f} GiB, it {fits}",
            f"work of a chip: {result.work / 1e12:.3f} TFLOP a step",
            f"exchanged: {moved or 'nothing'}",
            f"of these not parameters or gradients: {'; '.join(result.strangers) or 'none'}",
            f"estimate: {1e3 * result.compute:.1f} ms of matrix products at {peak}, "
            f"{1e3 * result.exchange:.1f} ms of exchange at {2 * chip.link / 1e9:.0f} GB/s; a step "
            f"takes {1e3 * longer:.1f} ms (overlapped) to "
            f"{1e3 * (result.compute + result.exchange):.1f} ms (in turn)",
            f"compiled in {result.seconds:.0f} s",
        )
    )


def row(title: str, batch: int, result: Result) -> str:
    """The result as one line of the table in docs/scale.md."""
    gib, total = 2**30, result.held + result.temporary
    cells = (
        title, str(batch), str(result.shards), f"{result.held / gib:.2f}",
        f"{result.temporary / gib:.2f}", f"{total / result.chip.memory:.0%}",
        f"{result.work / 1e12:.2f}",
        f"{sum(result.moved.values()) / gib:.2f}", str(len(result.strangers)),
        f"{1e3 * result.compute:.0f}", f"{1e3 * result.exchange:.0f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main(argv: list[str] | None = None) -> None:
    """The command line of this module's docstring."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("compile_check.py", description=__doc__, formatter_class=form)
    parser.add_argument("--topology", required=True, help="such as v5e:2x4")
    parser.add_argument("--config", required=True)
    parser.add_argument("--phase", default="", help="a phase of the config; by default its last")
    parser.add_argument("--batch", type=int, default=0, help="images of each side; 0: the config's")
    parser.add_argument("--fsdp", type=int, default=0, help="0: the config's; -1: all chips")
    parser.add_argument("--model", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--row", action="store_true", help="one line of a markdown table")
    args = parser.parse_args(argv)
    config = complete_config(cli.load_config(args.config))
    config["model"]["args"].update(cli.assignments(args.model, "--model"))
    config["model"]["args"].setdefault("dtype", "bfloat16")
    config["runtime"]["fsdp"] = args.fsdp or config["runtime"]["fsdp"]
    plan = resolve(config)
    phase = args.phase or [*plan.phases][-1]
    if phase not in plan.phases:
        raise unknown_name("phase of this config", phase, plan.phases)
    config[phase]["stop"] = ""  # it compares images, and there are none here
    plan = resolve(config)
    chip, devices = devices_of(args.topology)
    batch = args.batch or plan.phases[phase].batch_size
    title = f"{args.topology}, {args.config}, {' '.join(args.model)}".removesuffix(", ")
    result = check(plan, phase, batch, chip, devices)
    if args.row:
        print(row(title, batch, result))
        return
    print(
        f"{title}, phase {phase}: {len(devices)} chips, {result.shards} of them share the "
        f"parameters, {batch} images of each side, bfloat16\n{describe(result)}"
    )


if __name__ == "__main__":
    cli.run_with_clear_errors(main)
