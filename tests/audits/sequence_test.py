"""The next class to forget, and the run's own unlearning, repeated for it."""

import dataclasses

import jax
import numpy as np
import pytest

from l2l_jax.audits import sequence
from l2l_jax.lib import per_image
from l2l_jax.lib.errors import CannotRun
from l2l_jax.types import ImageSet
from tests.audits import fakes


def classes(*names, name="retain_train"):
    images = np.zeros((len(names), 8, 8, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(names))
    return ImageSet(name, images, names)


def test_the_next_class_has_most_images_and_held_out_ones():
    train = classes("a", "b", "c", "b", "c", "d", "d", "d")
    held_out = classes("a", "c", "b", name="retain_eval")
    assert sequence.next_class(train, held_out) == "b"  # d has no held-out images; b before c
    forget, retain = sequence.divided(train, "b")
    assert forget.classes == ("b", "b")
    assert retain.images[:, 0, 0, 0].tolist() == [0, 2, 4, 5, 6, 7]
    with pytest.raises(CannotRun, match="no second class"):
        sequence.next_class(classes("a", "a"), classes("a", name="retain_eval"))


@pytest.mark.slow
def test_unlearning_moves_what_the_method_moves_and_repeats_itself():
    subject = fakes.subject(fakes.find("audit", "sequence"))  # the run's method is l2l
    forget, retain = sequence.divided(subject.sets["retain_train"], "class2")
    before = jax.tree.map(np.asarray, subject.params)
    one, two = (subject.unlearn(forget, retain, 3) for _ in range(2))
    same = jax.tree.map(lambda x, y: bool((x == y).all()), one, two)
    assert jax.tree.all(same)
    equal = jax.tree.map(lambda x, y: bool((x == y).all()), one, before)
    assert jax.tree.all(equal["decoder"])
    assert not jax.tree.all(equal["encoder"])
    other = subject.unlearn(retain, forget, 3)
    assert not jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), one, other))


@pytest.mark.slow
def test_the_teacher_is_what_it_starts_from():
    """L2L keeps retain latents where the teacher has them; the forget ones go elsewhere."""
    subject = fakes.subject(fakes.find("audit", "sequence"))
    forget, retain = sequence.divided(subject.sets["retain_train"], "class2")
    start = fakes.random_params(seed=5)
    made = subject.unlearn(forget, retain, 40, start=start)
    moved = {}
    for name, images in (("forget", forget), ("retain", retain)):
        one, two = (
            subject.measure(per_image.encoder_end, images, params=params)
            for params in (start, made)
        )
        moved[name] = float(np.mean((one - two) ** 2))
    assert moved["forget"] > moved["retain"]


def test_a_run_without_forget_side_has_nothing_to_repeat():
    subject = fakes.subject(fakes.find("audit", "sequence"))
    experiment = subject.laboratory.experiment
    phases = {"pretrain": experiment.plan.phases["pretrain"]}
    plan = dataclasses.replace(experiment.plan, phases=phases)
    changed = fakes.Laboratory(dataclasses.replace(experiment, plan=plan))
    with pytest.raises(CannotRun, match="no phase"):
        dataclasses.replace(subject, laboratory=changed).unlearn(
            subject.sets["retain_train"], subject.sets["retain_train"], 1
        )
