"""results["figures"]: the figures of all evaluators of a config, under their names in results."""

from types import SimpleNamespace

import pytest

from l2l_jax.engine import evaluation
from l2l_jax.engine.evaluation import describe_figures
from l2l_jax.engine.plan import EvaluatorPlan
from l2l_jax.registry import find
from l2l_jax.types import Evaluator, Figure


def plans(evaluators):
    """{name: plan} of a config's evaluators."""
    return {
        name: EvaluatorPlan(name, find("evaluator", section.get("evaluator", name)), section)
        for name, section in evaluators.items()
    }


def test_figures_stand_as_their_evaluators_declare_them():
    described = describe_figures(plans({"inception_score": {"splits": 1}, "tsne": {}, "fid": {}}))
    assert list(described) == ["inception_score", "tsne", "fid"], "the order of the config"
    assert described["tsne"] == {}
    for name, figures in described.items():
        assert tuple(figures.values()) == find("evaluator", name).FIGURES


@pytest.mark.parametrize(
    ("name", "evaluator", "figure", "title"),
    [
        ("fid_places", "fid", "fid_places", "FID (places)"),
        ("is_released", "inception_score", "is_released", "Inception Score (released)"),
        ("clip", "cosine", "clip", "cosine (clip)"),
        ("on_two_sides", "fid", "on_two_sides", "FID (on two sides)"),
    ],
)
def test_another_name_is_a_part_of_the_title(name, evaluator, figure, title):
    first, *spread = describe_figures(plans({name: {"evaluator": evaluator}}))[name].values()
    assert (first.name, first.title) == (figure, title)
    assert first.good == find("evaluator", evaluator).FIGURES[0].good
    assert all(each.spread_of == figure for each in spread)
    assert [each.name for each in spread] == [f"{figure}_std"] * len(spread)


def test_two_figures_of_one_name_get_different_names():
    evaluators = {"reconstruction": {"grids": False}, "psnr": {"evaluator": "fid"}}
    described = describe_figures(plans(evaluators))
    assert described["reconstruction"]["psnr"].name == "psnr"
    assert described["psnr"]["fid"].name == "psnr_psnr"
    evaluators = {"is": {"evaluator": "fid"}, "inception_score": {}}
    described = describe_figures(plans(evaluators))
    assert described["is"]["fid"].name == "is_is", "the evaluator under its own name keeps its name"
    first, spread = described["inception_score"].values()
    assert (first.name, spread.name, spread.spread_of) == ("is", "is_std", "is")


def test_a_figure_that_is_not_declared_is_an_error():
    def evaluate(completer):
        yield ("original", "retain", "center"), "lpips", 0.5
        yield ("original", "retain", "center"), "lpip", 0.5

    evaluator = Evaluator("mine", evaluate, FIGURES=(Figure("lpips", "LPIPS"),))
    completer = SimpleNamespace(
        variants=("original",), sides=("retain",), tasks=("center",), sets={"retain": None},
        judged=lambda judge, cells: judge(),
    )  # fmt: skip
    mine = {"mine": EvaluatorPlan("mine", evaluator, {})}
    with pytest.raises(TypeError, match=r"evaluators/mine\.py yields the figure 'lpip'"):
        evaluation.measure(completer, mine, describe_figures(mine))
