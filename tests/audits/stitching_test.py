"""Exchanged encoders and decoders, where it is known whose they are."""

import jax
import numpy as np
import pytest

from l2l_jax.audits import stitching
from tests.audits import fakes

pytestmark = pytest.mark.slow  # the first test makes what the others need

STEPS = (0, 2)


def found_of(params):
    return {name: fakes.findings("stitching", name, params, steps=STEPS) for name in params}


def value(found, **at):
    (one,) = [x.value for (_, place), x in found.items() if dict(place) == at]
    return one


def test_a_decoder_that_is_the_originals_is_named():
    """Its encoder is another one: `original encoder, own decoder` is the original, bit for bit."""
    original = fakes.random_params(seed=0)
    unlearned = original | {"encoder": fakes.random_params(seed=1)["encoder"]}
    found = found_of({"original": original, "unlearned": unlearned})
    own, before = found["unlearned"], found["original"]
    assert value(own, part="decoder") == 1
    assert value(own, part="encoder") < 1
    pair = {"encoder": "original", "decoder": "own"}
    assert value(own, **pair) == value(before, encoder="own", decoder="own")
    assert value(own, encoder="own", decoder="original") == value(own, encoder="own", decoder="own")
    sentence = stitching.conclude(fakes.compared(found))
    assert 'The decoder is the original\'s bit for bit: "original encoder, own decoder"' in sentence


def test_one_changed_number_makes_it_another_decoder():
    original = fakes.random_params(seed=0)
    leaves, tree = jax.tree.flatten(original["decoder"])
    changed = [*leaves[:-1], leaves[-1] + 1e-3]
    unlearned = original | {"decoder": jax.tree.unflatten(tree, changed)}
    found = found_of({"original": original, "unlearned": unlearned})
    assert value(found["unlearned"], part="decoder") == 1 - 1 / len(leaves)
    assert "The encoder is the original's bit for bit" in stitching.conclude(fakes.compared(found))


def test_the_new_encoder_alone_is_trained_and_is_the_same_for_all():
    audit = fakes.find("audit", "stitching")
    one, two = (fakes.subject(audit, name) for name in ("original", "unlearned"))
    new = [stitching.new_encoder(each) for each in (one, two)]
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), *new))
    start = two.params | {"encoder": new[1]}
    images = two.sets["retain_train"]
    *_, (_, trained) = two.attack(images, (3,), lr=1e-3, start=start, groups=("encoder",))
    assert stitching.equal_share(trained["decoder"], two.params["decoder"]) == 1
    assert stitching.equal_share(trained["encoder"], new[1]) < 1
    *_, (_, both) = two.attack(images, (3,), lr=1e-3, start=start)
    assert stitching.equal_share(both["decoder"], two.params["decoder"]) < 1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(trained))
