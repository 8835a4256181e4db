"""launch/compile_check.py: what it says, and a step compiled for TPUs if libtpu is installed."""

import importlib.util
import re
import subprocess
import sys

import pytest

from tests.helpers import ROOT

SCRIPT = ROOT / "launch" / "compile_check.py"
SMALL = ("--config", "configs/fashion_mnist.py", "--model", "size=test", "depth=1", "width=64")


@pytest.fixture(scope="module")
def script():
    environment = pytest.MonkeyPatch()
    for name in ("JAX_PLATFORMS", "TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        environment.setenv(name, "cpu" if name == "JAX_PLATFORMS" else "1")
    environment.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    spec = importlib.util.spec_from_file_location("compile_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    environment.setitem(sys.modules, "compile_check", module)
    spec.loader.exec_module(module)
    yield module
    environment.undo()


def result_of(script, **changes):
    known = dict(
        chip=script.CHIPS["v5e"],
        held=2 * 2**30,
        temporary=6 * 2**30,
        work=197e11,
        moved={"all-gather": 9_000_000_000, "all-reduce": 4_500_000_000},
        times={"all-gather": 24, "all-reduce": 1},
        strangers=[],
        shards=8,
        seconds=60.0,
    )
    return script.Result(**known | changes)


def test_the_estimate_follows_from_the_stated_speeds(script):
    result = result_of(script)
    assert result.compute == pytest.approx(0.25)  # 19.7 TFLOP at 40 % of 197 TFLOP/s
    assert result.exchange == pytest.approx(0.2)  # 9 GB once and 4.5 GB twice at 90 GB/s
    said = script.describe(result)
    assert "8.00 of 16 GiB, it fits" in said
    assert "a step takes 250.0 ms (overlapped) to 450.0 ms (in turn)" in said
    assert "not parameters or gradients: none" in said


def test_what_is_too_large_or_exchanges_activations_is_said(script):
    result = result_of(script, temporary=15 * 2**30, strangers=["all-gather of 12.0 MiB"])
    said = script.describe(result)
    assert "it does not fit" in said
    assert "not parameters or gradients: all-gather of 12.0 MiB" in said
    assert script.row("v5e:2x4, MAE", 64, result).count("|") == 12


@pytest.mark.parametrize(
    ("topology", "message"),
    [("v9:2x4", r"No kind of TPU in --topology called 'v9'"), ("v5e:x", "try v5e:2x4|tpu-check")],
)
def test_unknown_slices(script, topology, message):
    with pytest.raises(Exception, match=message):
        script.devices_of(topology)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed")
def test_a_small_step_compiles_for_eight_chips():
    words = [sys.executable, str(SCRIPT), "--topology", "v5e:2x4", "--fsdp", "-1", *SMALL]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert not done.returncode, done.stderr
    assert "8 chips, 8 of them share the parameters" in done.stdout
    assert re.search(r"exchanged: .*reduce-scatter", done.stdout), done.stdout
    assert "not parameters or gradients: none" in done.stdout
