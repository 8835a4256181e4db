"""One file is enough to add a model, method, solver, task, data set, evaluator or feature network.

The files of tests/plugins are copied into a temporary folder, which L2L_PLUGINS names. The contract
tests find them without further changes. One run trains, evaluates and reports with all of them, and
its result is exported.
"""

import shutil
import subprocess

import pytest

from l2l_jax.lib import files
from tests.helpers import ROOT, call, command

PLUGINS = {
    "model": "example_linear",
    "method": "example_shift",
    "solver": "example_sum",
    "task": "example_checkers",
    "dataset": "example_gradients",
    "evaluator": "example_brightness",
    "feature_network": "example_means",
    "audit": "example_brightness_kept",
}
CONFIG = """
from configs import common


def get_config():
    config = common.base()
    config.phases = ("pretrain", "unlearn")
    config.model = dict(name="example_linear", args=dict(image_size=16))
    config.data.name = "example_gradients"
    config.split.forget.classes = ("right",)
    config.tasks = dict(checkers=dict(task="example_checkers", args=dict()))
    small = dict(steps=4, batch_size=8, tasks=("checkers",))
    config.pretrain = common.phase("pretrain", on="all", **small)
    config.unlearn = common.phase("example_shift", solver="example_sum", **small)
    config.evaluate.update(dict(tasks=("checkers",), batch_size=16))
    config.networks = dict(main=dict(name="example_means", args=dict()))
    config.evaluators = dict(example_brightness=dict(), fid=dict(), reconstruction=dict())
    config.audits = ("example_brightness_kept",)
    config.runtime.tensorboard = False
    return config
"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """A folder with one plug-in of each kind."""
    return shutil.copytree(ROOT / "tests" / "plugins", tmp_path_factory.mktemp("plugins") / "mine")


@pytest.mark.slow
def test_the_contract_suite_finds_them(plugins):
    """Beside the example model they meet the cheapest one of the package."""
    words = ("pytest", "-v", "-p", "no:cacheprovider", "tests/contract_test.py")
    words = (*words, "-k", "example_", "-m", "not slow")
    done = call(*words, L2L_PLUGINS=str(plugins), timeout=900)
    assert done.returncode == 0, done.stdout[-3000:]
    for kind, name in PLUGINS.items():
        assert name in done.stdout, kind


@pytest.mark.slow
def test_a_run_trains_evaluates_reports_and_exports_with_them(plugins, tmp_path):
    config, workdir = plugins / "configs" / "mine.py", tmp_path / "run"
    config.parent.mkdir()
    config.write_text(CONFIG)
    environment = dict(L2L_PLUGINS=str(plugins))
    words = ("--config", config, "--workdir", workdir)
    done = call("l2l_jax.main", *words, "--config.unlearn.args.length=2.0", **environment)
    assert done.returncode == 0, done.stderr
    results = files.read_json(workdir / "results.json")
    for variant in ("original", "unlearned"):
        assert results[variant]["forget"].keys() == {"brightness", "fid", "psnr", "l1"}
    assert results["original"] != results["unlearned"]
    page = (workdir / "report.html").read_text()
    assert "mean brightness" in page
    assert "grey levels" in page
    (row,) = results["audits"]["example_brightness_kept"]["rows"]
    assert row["figure"] == "difference"
    assert "Does it still know how bright the images are?" in page
    for target in ("out.safetensors", "out.pth"):
        done = call("l2l_jax.weights", "export", workdir, tmp_path / target, **environment)
        supported = target.endswith(".safetensors")
        assert (done.returncode == 0) == supported, done.stderr
    assert "'example_linear' has no official file format" in done.stderr
    assert "Traceback" not in done.stderr
    done = call("l2l_jax.main", *words, "--config.unlearn.args.length=2.0", **environment)
    assert "is finished" in done.stderr


@pytest.mark.slow
def test_an_incomplete_plugin_error_names_what_is_missing(tmp_path):
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "example_broken.py").write_text("TRAINABLE = ('encoder',)\nSIDE = ('retain',)\n")
    code = "from l2l_jax.registry import find; find('method', 'example_broken')"
    arguments, env = command("site", L2L_PLUGINS=str(tmp_path))
    done = subprocess.run([arguments[0], "-c", code], env=env, capture_output=True, text=True)
    assert "example_broken.py is no method: it lacks objectives, SIDES, TEACHER" in done.stderr
