"""The compiled step over several devices: what each computes, and what they exchange."""

import jax
import numpy as np
import pytest

from l2l_jax.engine.plan import TaskPlan
from l2l_jax.engine.step import UpdateRule, make_update, shard_update
from l2l_jax.lib import compiled, flops, optim, sharding, trees
from l2l_jax.registry import find, names

ROWS = 16  # of a batch: two on each of eight devices
MODELS = [name for name in names("model") if not name.startswith("example_")]
# Widths of several times 8, so that all large parameters are split over 8 devices.
WIDER = {
    "mae": dict(width=64, decoder_width=64),
    "mage": dict(width=64, decoder_width=64),
    "diffusion": dict(width=16, groups=4),
    "autoencoder": dict(widths=(16, 16)),
    "vqgan": dict(width=16),
}


def args_of(name):
    return find("model", name).SMALLEST | WIDER[name]


def rule_of(name, method="l2l", **more):
    optimizer, rate = optim.make_optimizer(steps=10, lr=1e-3, warmup=0.0)
    return UpdateRule(
        phase="unlearn",
        model=find("model", name).build(**args_of(name), **more),
        method=find("method", method),
        args={},
        solver=find("solver", "weighted"),
        solver_args={},
        optimizer=optimizer,
        learning_rate=rate,
        seed=0,
    )


def program_of(rule, fsdp, devices=8):
    """(text of the compiled step, FLOPs of the step, the student's shapes)."""
    mesh = sharding.make_mesh(fsdp, jax.devices()[:devices])
    template = sharding.abstract_tree(mesh, rule.model.template)
    state = sharding.abstract_tree(mesh, jax.eval_shape(rule.init, template))
    fixed = rule.fixed(template, template)
    size, rows = rule.model.image_size, sharding.batch_sharding(mesh)
    images = jax.ShapeDtypeStruct((ROWS, size, size, 3), np.uint8, sharding=rows)
    data = dict.fromkeys(rule.method.SIDES, images)
    update = make_update(rule, TaskPlan("random", find("task", "random"), dict(ratio=0.75)), mesh)
    step = shard_update(update, state, fixed, data, mesh)
    text = step.lower(state, fixed, data).compile().as_text()
    return text, flops.count(update, state, fixed, data), state.student


def check(rule, fsdp):
    """Asserts that the devices share the work and exchange parameters and gradients alone."""
    text, work, student = program_of(rule, fsdp)
    share = compiled.flops(text) * 8 / work
    assert share == pytest.approx(1, abs=0.05), f"a device does {share:.2f} times its part"

    found = compiled.collectives(text, least=256)
    parameters = {leaf.shape for leaf in jax.tree.leaves(rule.model.template)}
    parameters |= {shape[1:] for shape in parameters}  # one block of a scanned stack
    for x in found:
        if x.kind != "all-reduce":
            shapes = {array.shape for array in x.outputs}
            assert shapes <= parameters, f"{x.kind} of {shapes} is not of parameters: {x.text}"

    held = trees.count(student) * 4
    reduced = compiled.total_bytes(found).get("all-reduce", 0)
    stages = 1 if fsdp in (1, 8) else 1 + 1 / fsdp  # over "fsdp", then the parts over "data"
    assert 0 < reduced / held < 1.05 * stages, "each gradient is summed once"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fsdp", "args"),
    [
        *((name, 8, {}) for name in MODELS),
        ("mae", 4, {}),
        ("mae", 1, dict(scan=True, remat=True)),  # gradients are summed in the loop over the blocks
        ("mage", 8, dict(method="finetune")),  # trains the decoder and its embeddings too
    ],
)
def test_devices_share_the_work_and_exchange_parameters_alone(name, fsdp, args, monkeypatch):
    monkeypatch.setattr(sharding, "MIN_SHARDED_SIZE", 1)
    check(rule_of(name, **args), fsdp)
