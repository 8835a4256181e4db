"""launch/benchmark.py runs, on a small folder of images; its figures are not checked."""

import re
import runpy

import numpy as np
import pytest
from PIL import Image

from l2l_jax.lib import cli
from l2l_jax.lib.errors import ConfigError
from tests.helpers import ROOT


@pytest.fixture
def main(monkeypatch):
    monkeypatch.setenv("L2L_CACHE", "/nowhere")  # monkeypatch restores what main sets
    monkeypatch.setattr(cli, "run_with_clear_errors", lambda *_: None)
    return runpy.run_path(str(ROOT / "launch" / "benchmark.py"))["benchmark"].main


@pytest.mark.slow
def test_every_pipeline_is_compared_with_plain_pillow(main, tmp_path, capsys):
    for i in range(4):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    main(["input", "--folder", str(tmp_path), "--images", "64", "--rounds", "1", "--size", "16"])
    printed = capsys.readouterr().out
    for name in ("plain Pillow ", "cache none, resize pillow", "cache disk, resize pillow"):
        assert name in printed
    assert "images/s of a core" in printed
    assert "1 threads: " in printed


@pytest.mark.slow
def test_the_demand_of_hosts_follows_from_the_work(main, capsys):
    main(["input", "--config", "configs/mae_imagenet.py", "--demand"])
    work, chips, gpus = (
        float(number.replace(",", ""))
        for number in re.findall(r"([\d,.]+) (?:GFLOP|images/s)", capsys.readouterr().out)
    )
    assert 30 < work < 40  # ViT-B sees 49 + 49 tokens of two images, and an L2L step has no decoder
    assert chips == pytest.approx(0.4 * 4 * 197e12 / (1e9 * work), rel=0.01)
    assert gpus == pytest.approx(0.4 * 8 * 989e12 / (1e9 * work), rel=0.01)


@pytest.mark.slow
def test_the_step_is_that_of_the_last_phase_unless_another_is_named(main, capsys):
    config = str(ROOT / "configs" / "fashion_mnist.py")
    main(["--config", f"{config}:pretrain", "--batch", "2", "--count"])
    assert "G multiply-adds an image" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"No phase of this config called 'unlearn'.*pretrain"):
        main(["--config", f"{config}:pretrain", "--phase", "unlearn", "--count"])
