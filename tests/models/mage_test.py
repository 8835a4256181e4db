"""MAGE's own promises: what is hidden, dropped, frozen, sampled and pasted; its files."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.lib import flops, trees
from l2l_jax.lib.errors import ConfigError, WrongWeights
from l2l_jax.models import mage
from l2l_jax.models.layers import parallel_decoding
from l2l_jax.registry import find
from l2l_jax.tasks import center, outpaint, random_ratio, side
from l2l_jax.types import Batch, UnlearnBatch
from l2l_jax.weights import convert, safetensors, torch_reader, torch_writer
from l2l_jax.weights.formats import mage as mage_format
from l2l_jax.weights.formats import vqgan as vqgan_format
from l2l_jax.weights.name_map import to_state_dict
from l2l_jax.weights.pretrained import load, read_official
from tests.helpers import images, small_model

MASKED, SEEN = 16 + 1000, 8 * 8  # the id of the mask token and the tokens of the smallest model


@functools.cache
def setting(**changes):
    model = small_model("mage", **changes)
    return model, jax.jit(model.init)(jax.random.key(0))


@pytest.mark.parametrize(("size", "width", "depth"), [("base", 768, 12), ("large", 1024, 24)])
@pytest.mark.slow
def test_published_sizes(size, width, depth):
    model = mage.build(size=size)
    assert model.grid == (16, 16)
    assert model.template["encoder"]["words"].shape == (2025, width)
    assert model.template["encoder"]["positions"].shape == (257, width)
    assert len(model.template["encoder"]["blocks"]) == depth
    assert len(model.template["decoder"]["blocks"]) == 8
    assert model.max_dropped == 128


# What the encoder is given -----------------------------------------------------------------------


def test_share_hides_as_published():
    shares = []
    for seed in range(300):
        hidden = np.asarray(random_ratio.mask(jax.random.key(seed), 3, (16, 16))).sum((1, 2))
        assert len(set(hidden.tolist())) == 1, "one share for the whole batch"
        shares.append(hidden[0] / 256)
    assert min(shares) >= 0.5
    assert max(shares) <= 1
    assert np.mean(shares) == pytest.approx(0.694, abs=0.02)
    assert random_ratio.visible((16, 16)) == (0, 128)


@pytest.mark.parametrize(("hint", "kept"), [(True, 33), (False, 65)])
@pytest.mark.slow
def test_half_of_the_tokens_are_dropped_and_only_masked_ones(hint, kept):
    model, params = setting()
    mask = random_ratio.mask(jax.random.key(1), 4, model.grid)
    visible = random_ratio.visible(model.grid) if hint else None
    inputs = model.corrupt(params, images(4, 16), mask, jax.random.key(2), visible=visible)
    assert model.encode(params, inputs).shape == (4, kept, 16)
    hidden = np.asarray(mask).reshape(4, -1)
    if hint:
        assert inputs.attend is None
        places = np.sort(inputs.places, axis=1)
        assert (places == inputs.places).all(), "raster order"
        dropped = np.array([sorted(set(range(SEEN)) - set(row.tolist())) for row in places])
        assert dropped.shape == (4, 32)
        assert np.take_along_axis(hidden, dropped, axis=1).all()
        assert len({tuple(row) for row in dropped}) == 4, "each image its own"
    given = np.take_along_axis(hidden, np.asarray(inputs.places), axis=1)
    assert ((np.asarray(inputs.tokens) == MASKED) == given).all()


@pytest.mark.slow
def test_student_and_teacher_see_the_same_tokens():
    """The draws are those of the key: noise in place of the image changes no mask."""
    model, params = setting()
    mask, key = random_ratio.mask(jax.random.key(1), 4, model.grid), jax.random.key(2)
    one, two = (model.corrupt(params, images(4, 16, s), mask, key) for s in (0, 1))
    np.testing.assert_array_equal(one.attend, two.attend)
    np.testing.assert_array_equal(one.hidden, two.hidden)
    assert not np.array_equal(one.target, two.target)


@pytest.mark.parametrize(
    ("module", "args", "count"),
    [
        (center, dict(cells=4), 36),
        (center, dict(cells=8), 100),
        (outpaint, dict(cells=12), 156),
        (outpaint, dict(cells=8), 220),
        (outpaint, dict(cells=30, finer=2), 112),  # a border of half a token, and the margin
        (outpaint, dict(cells=6, finer=2), 256),  # 13/16: the margin takes the last four
        # Released: both ends of the hole are rounded down to tokens. A central hole of r/16 is
        # 2 r half tokens wide; out-painting of r/16 shows all but a border of r half tokens.
        *[
            (center, dict(cells=2 * r, finer=2, margin="released"), count)
            for r, count in ((1, 9), (3, 25), (4, 36), (5, 49), (8, 100), (11, 169))
        ],
        *[
            (outpaint, dict(cells=32 - 2 * r, finer=2, margin="released"), count)
            for r, count in ((1, 87), (4, 156), (7, 207), (8, 220), (13, 255))
        ],
        (center, dict(cells=4, margin="released"), 36),
        (side, dict(cells=4, edge="left"), 80),
        (side, dict(cells=8, edge="down"), 144),
    ],
)
def test_completing_hides_what_overlaps_and_the_margin(module, args, count):
    model = mage.build(size="test")
    mask = module.mask(jax.random.key(0), 2, model.grid, **args)
    visible = module.visible(model.grid, **args)
    assert model.unseen(mask, visible).sum(axis=(1, 2)).tolist() == [count] * 2


def test_the_released_margin_begins_with_the_token_in_which_the_hole_ends():
    """By the rule of the released code: tokens first // 16 - 1 to end // 16 of a hole in pixels."""
    model = mage.build(size="test")
    for ratio in range(1, 15):  # at 15 the hole itself overlaps every token
        args = dict(cells=2 * ratio, finer=2, margin="released")
        mask = center.mask(jax.random.key(0), 1, model.grid, **args)
        first, end = 128 - 8 * ratio, 128 + 8 * ratio
        expected = np.zeros((16, 16), bool)
        rows = slice(max(0, first // 16 - 1), end // 16 + 1)
        expected[rows, rows] = True
        assert np.array_equal(model.unseen(mask, center.visible((16, 16), **args))[0], expected)
    assert center.visible((16, 16), **args) != tuple(center.visible((16, 16), **args))


@pytest.mark.slow
def test_completing_uses_the_margin_of_the_task():
    """With another margin, another number of tokens is made: the completion differs."""
    model, params = setting()
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        decode = mage.parallel_decoding.decode

        def recorded(tokens, hidden, *args, **keywords):
            seen.append(hidden.sum())
            return decode(tokens, hidden, *args, **keywords)

        patch.setattr(mage.parallel_decoding, "decode", recorded)
        for margin in ("symmetric", "released"):
            args = dict(cells=2, finer=2, margin=margin)
            mask = center.mask(jax.random.key(0), 1, model.grid, **args)
            visible = center.visible(model.grid, **args)
            model.reconstruct(params, images(1, 16), mask, jax.random.key(0), visible)
    assert seen[1] < seen[0]


# Frozen, tied ------------------------------------------------------------------------------------


def gradient_of_l2l(tying):
    model, params = setting(tying=tying)
    mask = random_ratio.mask(jax.random.key(1), 4, model.grid)
    parts = [Batch(images(4, 16, s), mask, random_ratio.visible(model.grid)) for s in (1, 2)]

    def total(student):
        l2l = find("method", "l2l")
        moved = params | student
        pair = l2l.objectives(model, moved, params, UnlearnBatch(*parts), jax.random.key(3))
        return pair[0] + pair[1]

    return model, params, jax.grad(total)({"encoder": params["encoder"]})["encoder"]


@pytest.mark.parametrize(("tying", "moves"), [("frozen", False), ("tied", True)])
@pytest.mark.slow
def test_unlearning_moves_the_decoder_only_where_it_is_tied(tying, moves):
    model, params, gradient = gradient_of_l2l(tying)
    encoder = jax.tree.map(lambda x, g: x - 10 * g, params["encoder"], gradient)
    assert not np.array_equal(encoder["words"], params["encoder"]["words"])
    inputs = model.corrupt(
        params, images(4, 16), jnp.ones((4, *model.grid), bool), jax.random.key(1)
    )
    latents = model.encode(params, inputs)
    before, after = (
        model.decode(p, latents, inputs) for p in (params, params | {"encoder": encoder})
    )
    assert np.array_equal(before, after) != moves


@pytest.mark.slow
def test_no_gradient_reaches_the_words_through_tied_logits():
    model, params = setting(tying="tied")
    inputs = model.corrupt(
        params, images(4, 16), jnp.ones((4, *model.grid), bool), jax.random.key(1)
    )
    latents = model.encode(params, inputs)

    def total(encoder):
        return model.decode(params | {"encoder": encoder}, latents, inputs).sum()

    gradient = jax.grad(total)(params["encoder"])
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_smoothed_cross_entropy():
    model, params = setting()
    mask = random_ratio.mask(jax.random.key(1), 3, model.grid)
    inputs = model.corrupt(params, images(3, 16), mask, jax.random.key(2))
    logits = np.asarray(model.decode(params, model.encode(params, inputs), inputs), np.float64)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    goal = np.full(logp.shape, 0.1 / 16)
    np.put_along_axis(goal, np.asarray(inputs.target)[..., None], 0.9 + 0.1 / 16, axis=-1)
    each, hidden = -(goal * logp).sum(-1), np.asarray(inputs.hidden)
    want = [row[h].mean() for row, h in zip(each, hidden, strict=True)]
    np.testing.assert_allclose(model.loss(params, inputs), want, rtol=1e-5)


# Completing --------------------------------------------------------------------------------------


def decoded(predict, hidden, steps=20, rng=0, length=256, temperature=6.0):
    tokens = jnp.tile(jnp.arange(length) % 7, (hidden.shape[0], 1))
    return parallel_decoding.decode(
        tokens,
        hidden,
        predict,
        jax.random.key(rng),
        mask_id=99,
        steps=steps,
        temperature=temperature,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("count", "active"), [(36, 2), (100, 6), (156, 9), (220, 14), (0, 0)])
def test_steps_run_as_the_released_schedule_says(count, active):
    opened = []

    def predict(tokens, open_):
        jax.debug.callback(lambda n: opened.append(int(n)), open_.sum())
        return jnp.zeros((*tokens.shape, 7))

    hidden = jnp.arange(256)[None] < count
    made = decoded(predict, hidden)
    jax.effects_barrier()
    assert len(opened) == active
    assert opened == sorted(opened, reverse=True)
    assert (made < 7).all()
    np.testing.assert_array_equal(made[:, count:], (jnp.arange(256) % 7)[None, count:])


@pytest.mark.slow
def test_each_image_takes_part_in_its_own_steps():
    """A row's result does not depend on how much of the other rows is hidden."""
    hidden = jnp.stack([jnp.arange(256) < 36, jnp.arange(256) < 220])
    table = jax.random.normal(jax.random.key(3), (256, 7))

    def predict(tokens, open_):
        return table + jnp.mean(open_, axis=1)[:, None, None]

    both = decoded(predict, hidden)
    small = decoded(predict, hidden.at[1].set(hidden[0]))
    np.testing.assert_array_equal(both[0], small[0])


def test_sure_tokens_are_kept_and_others_drawn_again():
    logits = jnp.log(jnp.array([[0.9, 0.1], [0.6, 0.4], [0.99, 0.01], [0.55, 0.45]]))[None]
    drawn, opened = jnp.zeros((1, 4), jnp.int32), jnp.array([[True, True, True, False]])
    again = parallel_decoding.least_confident(
        logits, drawn, opened, jnp.zeros((1, 4)), jnp.array([1])
    )
    assert again.tolist() == [[False, True, False, False]]
    again = parallel_decoding.least_confident(
        logits, drawn, opened, jnp.zeros((1, 4)), jnp.array([3])
    )
    assert again.tolist() == [[True, True, False, False]], "one at least is settled in every step"


@pytest.mark.slow
def test_a_visible_token_is_never_replaced_and_the_same_key_gives_the_same():
    model, params = setting()
    mask = center.mask(jax.random.key(0), 4, model.grid, cells=2)
    run = jax.jit(model.reconstruct)
    one, two = (run(params, images(4, 16), mask, jax.random.key(s)) for s in (0, 0))
    np.testing.assert_array_equal(one, two)
    other = run(params, images(4, 16), mask, jax.random.key(1))
    assert not np.array_equal(one, other)


@pytest.mark.slow
def test_the_blurred_composite_blends_and_leaves_the_rest():
    model, params = setting(composite="blurred")
    mask = center.mask(jax.random.key(0), 2, model.grid, cells=2)
    made = np.asarray(model.reconstruct(params, images(2, 16), mask, jax.random.key(0)))
    given = np.asarray(images(2, 16))
    np.testing.assert_allclose(made[:, :2, :2], given[:, :2, :2], atol=1e-6)
    assert not np.allclose(made[:, 5, 5], given[:, 5, 5]), "it reaches beyond the hole"


@pytest.mark.slow
def test_scanned_blocks_are_the_listed_ones():
    listed, params = setting()
    scanned = small_model("mage", scan=True)
    stacked = trees.stack(jax.device_get(params), scanned.template)
    mask = random_ratio.mask(jax.random.key(1), 4, listed.grid)
    losses = []
    for model, weights_ in ((listed, params), (scanned, stacked)):
        inputs = model.corrupt(weights_, images(4, 16), mask, jax.random.key(2))
        losses.append(model.loss(weights_, inputs))
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.slow
def test_given_tokens_no_convolution_is_left():
    model, params = setting()
    mask, visible = (
        random_ratio.mask(jax.random.key(1), 4, model.grid),
        random_ratio.visible(model.grid),
    )

    def work(pictures):
        def loss(params, pictures):
            inputs = model.corrupt(params, pictures, mask, jax.random.key(2), visible=visible)
            return model.loss(params, inputs).sum()

        return flops.count(loss, params, pictures)

    tokens = model.tokenize(params, images(4, 16))
    tokenizing = flops.count(model.tokenize, params, images(4, 16))
    assert work(images(4, 16)) - work(tokens) == tokenizing > 0


# Files -------------------------------------------------------------------------------------------


def official_file(path, without=(), **changes):
    model, params = setting(tying="tied")
    state = mage_format.to_torch(to_state_dict(jax.device_get(params), mage_format.NAMES), model)[
        "model"
    ]
    state = {k: v for k, v in (state | changes).items() if k not in without}
    torch_writer.write(path, {"model": state})
    return model


TOLD = {"heads": 2, "decoder_heads": 2, "image_size": 16, "tokenizer": {"groups": 4}}


@pytest.mark.slow
def test_an_official_file_holds_what_its_class_wants_and_comes_back(tmp_path):
    model = official_file(tmp_path / "a.pth")
    content = torch_reader.read(tmp_path / "a.pth")["model"]
    assert set(mage_format.UNUSED) <= content.keys()
    assert "mlm_layer.word_embeddings.weight" not in content
    read = read_official(tmp_path / "a.pth", "mage", TOLD)
    args = read.about["args"]
    paper = mage.build(**args)
    assert not trees.difference(read.params, paper.canonical, "file", "model")
    np.testing.assert_array_equal(read.params["decoder"]["words"], read.params["encoder"]["words"])
    assert args["tokenizer_digest"] == trees.digest(read.params["tokenizer"])
    assert model.grid == paper.grid
    again = mage_format.to_torch(to_state_dict(read.params, mage_format.NAMES), model)["model"]
    assert again.keys() == content.keys()
    for name, value in content.items():
        np.testing.assert_array_equal(again[name], value)


@pytest.mark.slow
def test_an_untied_decoder_is_exported_with_a_warning_and_comes_back(caplog, tmp_path):
    model, params = setting()
    params = jax.device_get(params)
    params["encoder"] = params["encoder"] | {"words": params["encoder"]["words"] + 1}
    content = mage_format.to_torch(to_state_dict(params, mage_format.NAMES), model)
    assert "mlm_layer.word_embeddings.weight" not in content["model"], "it loads strictly there"
    assert "decodes otherwise" in caplog.text
    torch_writer.write(tmp_path / "a.pth", content)
    read = read_official(tmp_path / "a.pth", "mage", TOLD)
    np.testing.assert_array_equal(read.params["decoder"]["words"], params["decoder"]["words"])


@pytest.mark.slow
def test_files_that_do_not_hold_a_whole_mage(tmp_path):
    official_file(
        tmp_path / "a.pth", without=("decoder_norm.bias",), **{"decoder_extra": np.ones(1)}
    )
    said = r"(?s)No rule for the names decoder_extra\..*only in a whole mage: decoder/norm/bias"
    with pytest.raises(WrongWeights, match=said):
        read_official(tmp_path / "a.pth", "mage", TOLD)
    official_file(tmp_path / "a.pth", without=("decoder_norm.bias",))
    with pytest.raises(WrongWeights, match="only in a whole mage: decoder/norm/bias"):
        read_official(tmp_path / "a.pth", "mage", TOLD)
    words = {"token_emb.word_embeddings.weight": np.zeros((1017 + 8, 16), np.float32)}
    official_file(tmp_path / "a.pth", **words)
    with pytest.raises(WrongWeights, match=r"1025 ids, 24 of them codes, .* has 16 codes"):
        read_official(tmp_path / "a.pth", "mage", TOLD)
    state = torch_reader.read(tmp_path / "a.pth")["model"]
    bare = {k: v for k, v in state.items() if not k.startswith("vqgan.")}
    with pytest.raises(WrongWeights, match="without its tokenizer"):
        mage_format.infer_args(bare, TOLD)
    encoder = {k: v for k, v in state.items() if not k.startswith(("decoder", "mlm"))}
    with pytest.raises(
        WrongWeights, match=r"lacks decoder_embed\.weight, decoder_pos_embed_learned"
    ):
        mage_format.infer_args(encoder, TOLD)
    with pytest.raises(WrongWeights, match="not a MAGE"):
        mage_format.infer_args({"x": np.zeros(1)}, {})


def ours(path, tying="frozen"):
    _, params = setting(tying=tying)
    args = dict(mage.SMALLEST, tying=tying)
    safetensors.save(path, jax.device_get(params), {"model": "mage", "args": args})
    return trees.digest(jax.device_get(params)["tokenizer"])


@pytest.mark.slow
def test_weights_belong_to_their_tokenizer(tmp_path):
    path = tmp_path / "w.safetensors"
    digest = ours(path)
    for said in ("", digest):
        assert load(str(path), "mage", dict(mage.SMALLEST, tokenizer_digest=said))
    with pytest.raises(WrongWeights, match=f"tokenizer_digest: '{digest}' there, 'other' in the"):
        load(str(path), "mage", dict(mage.SMALLEST, tokenizer_digest="other"))
    with pytest.raises(WrongWeights, match=r"'codes': 16.*there, .*'codes': 32.* in the config"):
        load(str(path), "mage", dict(mage.SMALLEST, tokenizer=dict(size="test", codes=32)))


@pytest.mark.slow
def test_a_tied_file_fits_both_variants_and_an_untied_one_only_its_own(tmp_path):
    ours(tmp_path / "tied.safetensors", "tied")
    for tying in ("frozen", "tied"):
        read = load(str(tmp_path / "tied.safetensors"), "mage", dict(mage.SMALLEST, tying=tying))
        assert ("words" in read.params["decoder"]) == (tying == "frozen")
    ours(tmp_path / "own.safetensors", "frozen")
    read = load(str(tmp_path / "own.safetensors"), "mage", dict(mage.SMALLEST, tying="tied"))
    assert "words" not in read.params["decoder"], "the copy was still the same"
    params = jax.device_get(setting()[1])
    params["decoder"] = params["decoder"] | {"words": params["decoder"]["words"] + 1}
    about = {"model": "mage", "args": mage.SMALLEST}
    safetensors.save(tmp_path / "own.safetensors", params, about)
    with pytest.raises(WrongWeights, match=r"only in own\.safetensors: decoder/words"):
        load(str(tmp_path / "own.safetensors"), "mage", dict(mage.SMALLEST, tying="tied"))


@pytest.mark.slow
def test_half_precision_changes_the_digest_that_is_told(tmp_path):
    digest = ours(tmp_path / "w.safetensors")
    made = safetensors.load(tmp_path / "w.safetensors")
    convert.export_file(made, tmp_path / "half.safetensors", half=True)
    args = safetensors.load(tmp_path / "half.safetensors").about["args"]
    assert args["tokenizer_digest"] != digest
    assert load(str(tmp_path / "half.safetensors"), "mage", args)


@pytest.mark.slow
def test_a_tokenizer_trained_with_a_critic_serves_without_it():
    trained = small_model("vqgan", adversarial=0.8)
    params = jax.device_get(trained.init(jax.random.key(0)))
    plain = small_model("vqgan")
    fitted = vqgan_format.adapt(params, plain)
    assert not trees.difference(fitted, plain.canonical, "fitted", "model")
    again = vqgan_format.adapt(fitted, trained)
    assert not trees.difference(again, trained.canonical, "fitted", "model")


@pytest.mark.slow
def test_another_image_size():
    _, params = setting()
    larger = mage.build(**dict(mage.SMALLEST, image_size=24))
    moved = mage_format.resize_positions(jax.device_get(params), larger.grid[0])
    assert not trees.difference(moved, larger.canonical, "resized", "model")


@pytest.mark.slow
def test_exporting_needs_a_known_ending(tmp_path):
    ours(tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"\.pth, \.ckpt \(official\)"):
        convert.export_file(safetensors.load(tmp_path / "w.safetensors"), tmp_path / "w.bin")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (dict(size="basee"), "Did you mean 'base'"),
        (dict(image_size=250), "try image_size=240 or 256"),
        (dict(tying="papers"), "No tying called 'papers'"),
        (dict(composite="blured"), "Did you mean 'blurred'"),
        (dict(drop=2.0), "0 <= drop <= 1"),
        (dict(tokenizer=dict(size="small", image_size=64)), "does not take image_size in a MAGE"),
        (dict(tokenizer=dict(siez="test")), "model.args.tokenizer does not take 'siez'"),
    ],
)
def test_bad_arguments(args, message):
    with pytest.raises(ConfigError, match=message):
        mage.build(**args)
