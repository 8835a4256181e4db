"""Runs are grouped by config, and labels are short, readable and unique."""

import itertools

import pytest

from l2l_jax.report.collect import collect
from l2l_jax.report.groups import grouped, series
from tests.report.runs import change, make, phase

PHASE_ONE = {
    name: phase(solver="epsilon", goal=name) for name in ("full_utility", "full_forgetting")
}


@pytest.fixture
def grid(tmp_path):
    """{label it should get: phases}, made with two seeds each; returns (records, wanted labels)."""
    wanted = {
        "l2l": {"unlearn": phase()},
        "max_loss, alpha 0.1": {"unlearn": phase("max_loss", alpha=0.1)},
        "max_loss, alpha 0.25": {"unlearn": phase("max_loss", alpha=0.25)},
        "max_loss, alpha 1": {"unlearn": phase("max_loss", alpha=1.0)},
        "ascent, then finetune": {"ascent": phase("ascent"), "finetune": phase("finetune")},
        "l2l with epsilon, r 0.25": {**PHASE_ONE, "tradeoff": phase(solver="epsilon", r=0.25)},
        "l2l with epsilon, r 0.5": {**PHASE_ONE, "tradeoff": phase(solver="epsilon", r=0.5)},
    }
    records = [
        collect(make(tmp_path / f"{at}-s{seed}", seed, phases))
        for at, phases in enumerate(wanted.values())
        for seed in (0, 1)
    ]
    return records, list(wanted)


def test_labels(grid):
    records, wanted = grid
    groups = grouped(records)
    assert [group.label for group in groups] == wanted
    assert all(group.seeds == (0, 1) for group in groups)


def test_series_are_in_the_order_of_their_number(grid):
    groups = grouped(grid[0][::-1])
    found = {some[0].label: [g.label for g in some] for key, some in series(groups) if key}
    assert list(found) == ["l2l with epsilon, r 0.25", "max_loss, alpha 0.1"]
    assert found["max_loss, alpha 0.1"][1:] == ["max_loss, alpha 0.25", "max_loss, alpha 1"]
    assert sum(len(some) for _, some in series(groups)) == len(groups)


def test_only_what_changes_no_result_may_differ_within_a_group(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b", seed=1)
    change(second, "config.json", ["runtime", "fsdp"], 8)
    change(second, "config.json", ["reference"], "runs/retrained-s1")
    change(second, "config.json", ["spare"], phase("max_loss"))  # of no phase
    for folder, seed in ((first, 0), (second, 1)):
        change(folder, "config.json", ["weights"], f"runs/original-s{seed}/final.safetensors")
    assert len(grouped([collect(first), collect(second)])) == 1
    change(second, "config.json", ["weights"], "runs/another-s1/final.safetensors")
    assert len(grouped([collect(first), collect(second)])) == 2


def test_a_cache_changes_no_result_and_an_aim_does(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b", seed=1)
    change(second, "config.json", ["data", "cache"], "memory")
    assert len(grouped([collect(first), collect(second)])) == 1
    change(second, "results.json", ["ended"], {"unlearn": "reached"})
    groups = grouped([collect(first), collect(second)])
    assert [group.label for group in groups] == ["l2l, aim none", "l2l, aim unlearn"]


def test_a_run_that_unlearns_nothing_is_what_it_makes(tmp_path):
    tasks = {"retrained": {"retain": {"fid": 1.0}, "forget": {"fid": 2.0}}}
    run = make(tmp_path / "a", phases={"pretrain": phase("pretrain")}, tasks=tasks)
    assert [group.label for group in grouped([collect(run)])] == ["retrained"]


def test_other_phases_of_the_same_methods_have_another_label(tmp_path):
    whole = make(tmp_path / "a", phases={**PHASE_ONE, "tradeoff": phase(solver="epsilon", r=0.5)})
    first = make(tmp_path / "b", phases={"full_forgetting": PHASE_ONE["full_forgetting"]})
    labels = [group.label for group in grouped([collect(whole), collect(first)])]
    assert labels == [
        "l2l with epsilon (full_utility + full_forgetting + tradeoff)",
        "l2l with epsilon (full_forgetting)",
    ]


def test_labels_are_unique_whatever_differs(tmp_path):
    """Five values in all combinations: more than a label holds unless it has to."""
    records = []
    for at, picked in enumerate(itertools.product((False, True), repeat=5)):
        folder = make(tmp_path / str(at), phases={"a": phase(), "b": phase()})
        paths = (["a", "steps"], ["b", "steps"], ["a", "args", "x"], ["model", "args", "depth"],
                 ["split", "seed"])  # fmt: skip
        for path, on in zip(paths, picked, strict=True):
            change(folder, "config.json", path, 5 if on else 6)
        records.append(collect(folder))
    labels = [group.label for group in grouped(records)]
    assert len(set(labels)) == 32
    assert "l2l, x 6, depth 6, a steps 6, b steps 6, split seed 6" in labels


def test_a_label_is_no_longer_than_it_must_be(tmp_path):
    folders = [make(tmp_path / name) for name in "ab"]
    for at, folder in enumerate(folders):
        for key in ("lr", "b1", "b2", "eps"):
            change(folder, "config.json", ["unlearn", key], at)
    groups = grouped([collect(folder) for folder in folders])
    assert [group.label for group in groups] == ["l2l, b1 0, b2 0, eps 0", "l2l, b1 1, b2 1, eps 1"]
    assert groups[1].differences == "b1 1, b2 1, eps 1, lr 1", "the page says the rest"


def test_other_models_and_data_are_named(tmp_path):
    folders = [make(tmp_path / name) for name in "ab"]
    change(folders[1], "config.json", ["model", "name"], "mage")
    change(folders[1], "config.json", ["data", "name"], "folder")
    labels = [group.label for group in grouped([collect(folder) for folder in folders])]
    assert labels == ["l2l, data fashion_mnist, model mae", "l2l, data folder, model mage"]


def test_what_only_some_configs_have_comes_last(tmp_path):
    """A key that one of the configs lacks says less than a value that differs."""
    older, newer = make(tmp_path / "a"), make(tmp_path / "b")
    change(newer, "config.json", ["unlearn", "args"], {"also": 1})
    change(newer, "config.json", ["unlearn", "steps"], 5)
    labels = [group.label for group in grouped([collect(older), collect(newer)])]
    assert labels == ["l2l, steps 4, no also", "l2l, steps 5, also 1"]
