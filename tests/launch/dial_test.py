"""launch/dial.py: the table of the recipe undo, from planted runs."""

from types import SimpleNamespace

import pytest

from l2l_jax.lib.errors import ConfigError
from l2l_jax.report.groups import Group
from launch import dial


def run_of(methods, psnr, relearn, reference=True, flops=50.0):
    """A run of these methods with planted figures of the unlearned and the retrained model."""
    phases = [f"phase{at}" for at in range(len(methods))]
    variants = {"original": (20.0, 17.0), "unlearned": psnr}
    variants |= {"retrained": (19.0, 12.0)} if reference else {}
    headline = {v: {"retain": {"psnr": r}, "forget": {"psnr": f}} for v, (r, f) in variants.items()}
    levels = {"original": 17.0, "unlearned": relearn, "retrained": 13.0}
    rows = [
        {
            "figure": "psnr",
            "at": {"images_per_class": 4, "images": 16, "steps": steps},
            "values": {v: {"value": levels[v] + steps / 100} for v in variants},
        }
        for steps in (0, 5, 10, 40)
    ]
    audits = {"relearn": {"rows": rows}, "benign": {"rows": []}}
    cost = {phase: {"flops": flops / len(phases)} for phase in phases}
    results = {"audits": audits, "cost": cost, "pretraining": {"flops": 1000.0}}
    config = {"phases": phases} | {p: {"method": m} for p, m in zip(phases, methods, strict=True)}
    return SimpleNamespace(results=results | headline, headline=headline, config=config,
                           unlearning=phases)  # fmt: skip


def group(label, *runs):
    return Group(label, tuple(runs), {}, "")


def test_recipes_are_placed_between_the_retrained_model_and_l2l():
    undo = [run_of(("l2l", "perturb", "distill"), (18.0, 11.0), level) for level in (13.5, 14.5)]
    rows = dial.table([group("l2l", run_of(("l2l",), (19.5, 9.0), 15.0)), group("undo", *undo)])
    assert list(rows) == ["original", "retrained", "l2l", "undo"]
    assert rows["undo"]["cost"] == pytest.approx(0.05)
    assert (rows["undo"]["retain"], rows["undo"]["forget"]) == (18.0, 11.0)
    assert rows["undo"]["relearn 10"] == pytest.approx(14.1)
    held = {name: row["held 10"] for name, row in rows.items()}
    assert held == pytest.approx({"original": 2.0, "retrained": 0.0, "l2l": 1.0, "undo": 0.5})
    assert rows["undo"]["benign"] is None, "that audit found nothing"
    text = dial.markdown(rows)
    assert "| undo | 5.0% | 18.00 | 11.00 | 14.05 | 14.10 | 14.40 |  | 0.50 | 0.50 | 0.50 |" in text


def test_without_a_reference_the_place_is_empty():
    run = run_of(("l2l",), (19.5, 9.0), 15.0, reference=False)
    rows = dial.table([group("l2l", run)])
    assert list(rows) == ["original", "l2l"]
    assert rows["l2l"]["held 10"] is None


def test_runs_that_do_not_unlearn_are_refused():
    with pytest.raises(ConfigError, match="None of the runs unlearns"):
        dial.table([])
