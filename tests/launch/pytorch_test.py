"""The PyTorch side of the comparison is the same network, and the comparison runs."""

import argparse

import pytest

torch = pytest.importorskip("torch", reason="the extra [dev] has PyTorch")

from launch.peers import items, measure  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize("name", measure.TINY)
def test_both_sides_agree(name):
    """Outputs, and of a step the loss and the norm of the gradient."""
    torch.manual_seed(0)
    for item in measure.TINY[name]("float32"):
        assert measure.difference(item) <= items.TOLERANCE, item.name


@pytest.mark.slow
def test_a_step_is_timed_and_described():
    torch.manual_seed(0)
    item = measure.TINY["MAE"]("float32")[0]
    args = argparse.Namespace(compile=False, warm=0, rounds=2)
    first, second, third = measure.measure(item, args, "cpu", False)
    assert first.startswith("MAE test: step: 0.0 GFLOP, ")
    assert second.startswith("    eager: ")
    assert "ratio" in second
    assert float(third.rpartition("eager ")[2].removesuffix(" MiB")) >= 0


@pytest.mark.slow
def test_the_memory_of_live_tensors_is_counted():
    def call():
        kept = torch.zeros(1 << 20)
        for _ in range(3):
            kept = kept + 1  # two live at a time, of 4 MiB each
        return kept

    assert measure.torch_memory(call, "cpu") == pytest.approx(8, abs=0.1)
