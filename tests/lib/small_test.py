"""Small modules: trees, name maps, weights files, FLOPs, optimizer, keys, sharding, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from l2l_jax.lib import errors, files, flops, masks, optim, pixels, rng, sharding, signatures, trees
from l2l_jax.lib.errors import ConfigError, WrongWeights
from l2l_jax.weights import name_map, safetensors
from l2l_jax.weights.name_map import Rule, transpose

TREE = {"encoder": {"blocks": {i: {"w": np.full((2, 3), i, np.float32)} for i in range(12)}}}


def test_flatten_and_unflatten():
    flat = trees.flatten(TREE)
    assert "encoder/blocks/11/w" in flat
    back = trees.unflatten(flat)
    assert list(back["encoder"]["blocks"]) == list(range(12)), "keys are integers in order"
    assert trees.digest(back) == trees.digest(TREE)


def test_stacking_is_by_number_not_by_name():
    template = {"encoder": {"blocks": {"w": np.zeros((12, 2, 3))}}}
    stacked = trees.stack(TREE, template)
    assert stacked["encoder"]["blocks"]["w"][:, 0, 0].tolist() == list(range(12))
    assert trees.digest(trees.unstack(stacked, TREE)) == trees.digest(TREE)


def test_a_digest_sees_names_values_types_and_shapes():
    x = np.arange(6, dtype=np.float32)
    kinds = [{"a": x}, {"b": x}, {"a": x + 1}, {"a": x.astype(np.float64)}, {"a": x.reshape(2, 3)}]
    assert len({trees.digest(tree) for tree in kinds}) == 5
    assert trees.digest({"a": x, "b": x}) == trees.digest({"b": x, "a": x})


def test_differences_list_both_sides():
    found, expected = {"a": np.zeros(2), "b": np.zeros(3)}, {"b": np.zeros(4), "c": np.zeros(1)}
    text = trees.difference(found, expected, "file", "model")
    assert "only in file: a (2,)" in text
    assert "only in model: c (1,)" in text
    assert "b: (3,) in file, (4,) in model" in text
    assert trees.difference(TREE, TREE, "x", "y") == ""


RULES = [Rule("fc.{i}.weight", "layers/{i}/kernel", transpose), Rule("b", "bias")]


def test_name_maps_work_in_both_directions():
    state = {"fc.0.weight": np.ones((2, 5)), "fc.10.weight": np.zeros((3, 4)), "b": np.arange(3)}
    ours = name_map.to_params(state, RULES)
    assert ours["layers"][10]["kernel"].shape == (4, 3)
    back = name_map.to_state_dict(ours, RULES)
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[k], state[k]) for k in state)
    assert all(value.flags["C_CONTIGUOUS"] for value in back.values())
    assert name_map.unknown_arrays(state, RULES) == ""
    assert name_map.unknown_arrays(state | {"fcx.1.weight": 0}, RULES) == (
        "No rule for the names fcx.1.weight."
    )
    with pytest.raises(WrongWeights, match=r"No rule for the name other\."):
        name_map.to_state_dict(ours | {"other": np.ones(1)}, RULES)
    two = [Rule("a.{i}.b.{j}", "x/{i}/{j}/y")]
    assert name_map.to_params({"a.3.b.12": 0}, two) == {"x": {3: {12: {"y": 0}}}}


def test_weights_files_keep_strided_arrays_and_detect_damage(tmp_path):
    path = tmp_path / "w.safetensors"
    params = {"layer": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T}, "b": np.ones(2)}
    digest = safetensors.save(path, params, {"model": "x", "args": {"size": "s"}})
    back = safetensors.load(path)
    assert np.array_equal(back.params["layer"]["kernel"], params["layer"]["kernel"])
    assert back.about["digest"] == digest == trees.digest(back.params)
    assert back.about["args"] == {"size": "s"}
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(WrongWeights, match="damaged"):
        safetensors.load(path)
    path.write_bytes(data[:50])
    with pytest.raises(WrongWeights, match="not a readable weights file"):
        safetensors.load(path)


def test_half_precision_is_for_kernels_only(tmp_path):
    params = {"kernel": np.full((4, 4), 1 / 3, np.float32), "table": np.full(4, 1 / 3, np.float32)}
    safetensors.save(tmp_path / "w", params, {"model": "x"}, half=True)
    back = safetensors.load(tmp_path / "w").params
    assert back["table"][0] == np.float32(1 / 3)
    assert back["kernel"][0, 0] == np.float32(np.float16(1 / 3))
    assert back["kernel"].dtype == np.float32


def test_flops_equal_those_of_xla():
    def function(x, w):
        layout = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layout)
        return jnp.einsum("bhwc,cd->bhwd", y, jnp.ones((8, 16)))

    x, w = jnp.ones((2, 10, 10, 4)), jnp.ones((1, 1, 4, 8))
    counted = flops.count(function, x, w)
    assert counted == 2 * 200 * 4 * 8 + 2 * 200 * 8 * 16
    xla = jax.jit(function).lower(x, w).compile().cost_analysis()["flops"]
    assert counted == pytest.approx(xla, rel=0.02)


def test_flops_of_loops_and_branches():
    def loop(x):
        return jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=7)[0]

    def branch(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x, x)

    x = jnp.ones((5, 5))
    assert flops.count(loop, x) == 7 * 2 * 125
    assert flops.count(branch, x) == 2 * 2 * 125
    assert flops.count(jax.checkpoint(lambda x: x @ x), x) == 2 * 125
    half = x.astype(jnp.bfloat16)
    assert flops.count_bytes(loop, x) == 7 * 3 * 25 * 4
    assert flops.count_bytes(lambda x: jnp.sin(x) @ x, half) == 3 * 25 * 2


def test_learning_rate_warms_up_and_falls():
    rate = optim.schedule(lr=1.0, warmup=0.1, final=0.2, steps=100)
    assert rate(0) == 0
    assert rate(10) == 1
    assert rate(5) == pytest.approx(0.5)
    assert rate(100) == pytest.approx(0.2)
    assert optim.schedule(lr=1.0, warmup=0.0, final=0.0, steps=1)(0) == 1
    with pytest.raises(ConfigError, match="share of the steps"):
        optim.schedule(lr=1.0, warmup=5, final=0.0, steps=100)


def test_no_weight_decay_for_biases_and_norms_in_both_layouts():
    params = {"norm": {"scale": 1.0, "bias": 1.0}, "blocks": {0: {"kernel": 1.0}}, "cls_token": 1.0}
    decayed = trees.flatten(optim.decay_mask(params))
    assert {k for k, v in decayed.items() if v} == {"blocks/0/kernel", "cls_token"}


def test_clipping_bounds_the_gradient():
    tx, _ = optim.make_optimizer(steps=10, lr=1.0, warmup=0.0, clip=1.0, weight_decay=0.0, eps=1e9)
    params = {"kernel": jnp.zeros(2)}
    updates, _ = tx.update({"kernel": jnp.array([30.0, 40.0])}, tx.init(params), params)
    direction = np.asarray(updates["kernel"]) * -1e9
    np.testing.assert_allclose(direction, [0.6, 0.8], rtol=1e-3)
    assert isinstance(tx, optax.GradientTransformation)


def test_keys_are_functions_of_their_path():
    def bits(*path):
        return tuple(np.asarray(jax.random.key_data(rng.key(0, *path))).tolist())

    paths = [("a",), ("b",), ("a", 0), ("a", 1), ("a", 0, "b"), ("a", "b", 0)]
    assert len({bits(*path) for path in paths}) == len(paths)
    traced = jax.jit(lambda step: jax.random.key_data(rng.key(0, "a", step)))(1)
    assert tuple(np.asarray(traced).tolist()) == bits("a", 1)
    assert rng.seed_of(0, "x") != rng.seed_of(1, "x") != rng.seed_of(1, "y")


def test_paste_clips_and_keeps_visible_pixels():
    mask = jnp.zeros((1, 2, 2), bool).at[0, 0, 1].set(True)
    original, generated = jnp.full((1, 4, 4, 3), 0.3), jnp.full((1, 4, 4, 3), 1.7)
    pasted = np.asarray(pixels.paste(original, generated, mask))
    assert (pasted[0, :2, 2:] == 1).all()
    assert (pasted[0, 2:] == np.float32(0.3)).all()
    with pytest.raises(ConfigError, match="take 1 to 3"):
        masks.central_block((4, 4), 4)


def test_meshes_and_batches_that_do_not_divide():
    with pytest.raises(ConfigError, match=r"runtime\.fsdp=3 does not divide 8 devices"):
        sharding.make_mesh(3)
    mesh = sharding.make_mesh(2)
    assert dict(mesh.shape) == {"data": 4, "fsdp": 2}
    with pytest.raises(ConfigError, match="try 56 or 64"):
        sharding.check_batch(60, mesh, 1, "unlearn.batch_size")
    with pytest.raises(ConfigError, match=r"8 devices x 4 accumulation steps; try 32\."):
        sharding.check_batch(8, mesh, 4, "unlearn.batch_size")


def test_large_arrays_are_sharded_and_small_ones_kept_whole():
    mesh = sharding.make_mesh(-1)
    tree = {"w": jnp.zeros((24, 64)), "odd": jnp.zeros((51, 51)), "b": jnp.zeros(64)}
    placed = sharding.place(jax.device_get(tree), sharding.parameter_shardings(mesh, tree))
    assert placed["w"].addressable_shards[0].data.shape == (24, 8)
    assert placed["odd"].addressable_shards[0].data.shape == (51, 51)
    assert placed["b"].addressable_shards[0].data.shape == (64,)


def test_errors_suggest_and_list():
    error = errors.unknown_name("method", "l2", ["l2l", "max_loss"], "Create it.")
    assert (
        str(error) == "No method called 'l2'. Did you mean 'l2l'? Known: l2l, max_loss. Create it."
    )

    def function(x, *, alpha, beta=1):
        return x, alpha, beta

    signatures.check_args(function, {"alpha": 1}, "unlearn.args")
    with pytest.raises(ConfigError, match=r"does not take 'alhpa'. Did you mean 'alpha'\?"):
        signatures.check_args(function, {"alhpa": 1}, "unlearn.args")
    with pytest.raises(ConfigError, match="needs a value for 'alpha'"):
        signatures.check_args(function, {}, "unlearn.args")


def test_a_file_is_written_completely_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": (1, 2)})

    def fail():
        with files.atomic_write(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert files.read_json(path) == {"a": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
