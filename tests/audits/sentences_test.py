"""The sentences of audits say nothing odd where nothing happened, or where the sign is another."""

import pytest

from l2l_jax.audits import memorization, precision, relearn
from l2l_jax.lib.placement import Compared

PLACE = {"images_per_class": 4, "images": 16, "steps": 10}


def compared(figure, *rows):
    """rows: (where, value of the original, value of the unlearned model)."""
    return Compared(
        [
            {
                "figure": figure,
                "at": at,
                "values": {"original": {"value": before}, "unlearned": {"value": after}},
            }
            for at, before, after in rows
        ]
    )


def test_memorization_says_better_or_worse():
    assert memorization.conclude(compared("psnr_gap", ({}, 0.14, -2.8))) == (
        "It completes the images to forget 2.80 dB worse than unseen images of their classes, and "
        "the original 0.14 dB better."
    )


@pytest.mark.parametrize(("after", "words"), [(12.0, "50%"), (10.0, "nothing"), (9.9, "nothing")])
def test_relearn_brings_back_a_share_or_nothing(after, words):
    found = compared("psnr", (PLACE, 14.0, after), (PLACE | {"steps": 0}, 14.0, 10.0))
    assert relearn.conclude(found) == (
        f"16 images and 10 steps bring back {words} of what was forgotten "
        f"(from 10.0 to {after} dB)."
    )


def test_relearn_without_a_loss():
    found = compared("psnr", (PLACE, 14.0, 15.0), (PLACE | {"steps": 0}, 14.0, 14.5))
    assert relearn.conclude(found).endswith("move it by +0.5 dB; nothing was lost before.")


@pytest.mark.parametrize(
    ("moved", "sentence"),
    [
        (0.3, "The change that brings back most is int4: +0.30 dB."),
        (-0.002, "No such change brings anything back."),
    ],
)
def test_precision_names_a_change_that_brings_something_back(moved, sentence):
    rows = (({"change": "int4"}, 15, 12 + moved), ({"change": "none"}, 15, 12.0))
    assert precision.conclude(compared("psnr", *rows)) == sentence
