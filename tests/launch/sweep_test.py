"""launch/sweep.py: which runs, in which order, what they reuse, and how a grid continues."""

import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError
from l2l_jax.report import page
from launch import sweep
from tests.helpers import ROOT, command

# A config with form words of its own; "lost" and "broken" make runs that fail.
CONFIG = """
from tests import helpers

def get_config(form=""):
    words = [word for word in form.split(",") if word]
    if unknown := set(words) - {"mild", "l2l", "finetune", "retrain", "lost", "broken"}:
        raise ValueError(f"grid.py has no form {sorted(unknown)}")
    config = helpers.small_config()
    config.evaluators = dict(reconstruction=dict())
    config.pretrain.steps = 3
    config.unlearn.steps = 3
    if "mild" in words:
        config.unlearn.optimizer.lr = 1e-5
    if "finetune" in words:
        config.phases = ("pretrain", "mend")
        config.mend = {**config.unlearn.to_dict(), "method": "finetune"}
    if "retrain" in words:
        config.phases = ("pretrain",)
        config.pretrain.on = "retain"
    if "lost" in words:
        config.phases = ("pretrain",)
        config.data = dict(config.data.to_dict(), name="folder", args=dict(root="/nowhere"))
    if "broken" in words:
        config.unlearn.args = dict(no_such_argument=1)
    return config
"""


@pytest.fixture(autouse=True)
def _as_before():
    """Restores the signal handlers and the log level that a sweep sets for its process."""
    level = logging.getLogger("l2l_jax").level
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    logging.getLogger("l2l_jax").setLevel(level)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def grid(tmp_path):
    path = tmp_path / "configs" / "grid.py"
    path.parent.mkdir()
    path.write_text(CONFIG)
    return path


def planned(grid, words, *given):
    return sweep.plan(str(grid), sweep.parse_axes(words.split()), given, Path("out"))


def test_axes():
    assert sweep.parse_axes(["x=((1,2),(3,4)),5"]) == {"x": ["((1,2),(3,4))", "5"]}
    axes = sweep.parse_axes(['unlearn.tasks=("a",),("a","b")', "alpha=0.1,1", "seed=0"])
    assert axes == {"unlearn.tasks": ['("a",)', '("a","b")'], "alpha": ["0.1", "1"], "seed": ["0"]}


@pytest.mark.parametrize(
    "words", [[], ["alpha"], ["=1"], ["alpha=1,"], ["alpha=1,1"], ["alpha=1", "alpha=2"], ["--x=1"]]
)
def test_what_is_no_axis(words, grid):
    with pytest.raises(ConfigError, match="is no axis"):
        planned(grid, " ".join(words))


def test_the_grid_in_its_order(grid):
    """By seed; retrain first; a method that reads no axis once; names are valid file names."""
    runs = planned(grid, "method=l2l,finetune,retrain alpha=0.1,1 seed=0,1")
    assert [run.name for run in runs] == [
        f"{name},seed={seed}"
        for seed in (0, 1)
        for name in ("retrain", "l2l,alpha=0.1", "l2l,alpha=1", "finetune")
    ]
    assert {run.folder for run in runs} == {Path("out") / run.name for run in runs}
    (tuples,) = planned(grid, 'pretrain.tasks=("random",)')
    assert tuples.name == "pretrain.tasks=__random_,_"


def test_the_command_of_each_run(grid, capsys):
    runs = planned(grid, "method=retrain,l2l alpha=0.1,1 seed=0,1", "--config.unlearn.steps=50")
    first, second = runs[0], runs[-1]
    assert first.command(None)[1:] == [
        *("-m", "l2l_jax.main", "--config", f"{grid}:retrain", "--workdir", "out/retrain,seed=0"),
        "--config.seed=0",
    ]
    warning = "retrain: left out of it: --config.unlearn.steps=50: this run has no such phase. Its"
    assert warning in capsys.readouterr().err
    assert second.command(Path("out/x"))[3:] == [
        *("--config", f"{grid}:l2l", "--workdir", "out/l2l,alpha=1,seed=1"),
        *("--config.unlearn.steps=50", "--config.unlearn.solver_args.alpha=1", "--config.seed=1"),
        *("--config.reference=out/retrain,seed=1", "--config.runtime.begin_from=out/x"),
    ]
    config = second.config
    assert (config["seed"], config["unlearn"]["steps"], config["unlearn"]["solver_args"]) == (
        *(1, 50),
        {"alpha": 1.0},
    )


def test_the_form_that_is_given_is_kept(grid):
    (run,) = sweep.plan(f"{grid}:mild", {"method": ["l2l"]}, (), Path("out"))
    assert run.spec == f"{grid}:mild,l2l"
    assert run.config["unlearn"]["optimizer"]["lr"] == 1e-5
    (run,) = sweep.plan(f"{grid}:mild", {"seed": ["3"]}, (), Path("out"))
    assert (run.spec, run.name) == (f"{grid}:mild", "seed=3")


def test_overrides_that_no_run_reads_are_refused(grid):
    for words in ("method=retrain", "method=finetune"):
        with pytest.raises(
            ConfigError, match=r"No run has the phase of --config\.unlearn\.steps=5"
        ):
            planned(grid, words, "--config.unlearn.steps=5")


def test_a_phase_that_is_not_done_has_no_axes(grid):
    """The config has a section unlearn that the finetune run does not read."""
    (run,) = planned(grid, "method=finetune seed=0")
    assert not sweep.reads_axis(run.config, "alpha")
    assert not sweep.reads_axis(run.config, "r")
    assert sweep.reads_axis(run.config, "mend.steps")
    assert sweep.reads_axis(run.config, "seed")


def test_one_objective_is_not_weighed():
    """With the project's own configs: a finetune run would be the same for every alpha."""
    spec = str(ROOT / "configs" / "autoencoder_cifar10.py")
    axes = sweep.parse_axes(["method=l2l,finetune,siss", "alpha=0.1,1"])
    runs = sweep.plan(f"{spec}:bundled", axes, (), Path("out"))
    assert [run.name for run in runs] == ["l2l,alpha=0.1", "l2l,alpha=1", "finetune", "siss"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("method=l2l,max_los", "grid.py has no form"),
        ("method=l2l,broken", "no_such_argument"),
        ("alhpa=0.1,1", "No run has the axis 'alhpa'.*Did you mean 'alpha'"),
        ("method=finetune alpha=1,2", "No run has the axis 'alpha'"),
        ("alpha=0.1,much", "much"),
        ("unlearn.steps=0", "unlearn.steps is at least 1"),
        ("unlearn.optimizer.learn=1", "No run has the axis"),
        ("method=retrain,l2l pretrain.steps=2,3", "one retrain a seed"),
        ('pretrain.tasks=("random",),["random",]', "the same name"),
    ],
)
def test_errors_are_raised_before_anything_runs(words, message, grid):
    with pytest.raises(ConfigError, match=message):
        planned(grid, words)


def test_a_workdir_of_another_config_is_refused_at_once(grid, tmp_path):
    folder = tmp_path / "out" / "l2l"
    (run,) = sweep.plan(str(grid), {"method": ["l2l"]}, (), tmp_path / "out")
    files.write_json(folder / "config.json", {**run.config, "seed": 9})
    with pytest.raises(ConfigError, match="belongs to another config"):
        sweep.plan(str(grid), {"method": ["l2l"]}, (), tmp_path / "out")


def test_what_a_run_begins_from_when_all_goes_well(grid):
    runs = planned(grid, "method=retrain,l2l,finetune alpha=0.1,1 seed=0,1 mend.steps=2,3")
    source = {run.name: sweep.find_source(run, runs, planned=True) for run in runs}
    for seed in (0, 1):
        first = Path(f"out/l2l,alpha=0.1,seed={seed}")
        assert source[f"retrain,seed={seed}"] is None, "it sees other images"
        assert source[first.name] is None, "it is the first of its kind"
        assert source[f"l2l,alpha=1,seed={seed}"] == first
        assert source[f"finetune,mend.steps=3,seed={seed}"] == first


def test_the_longest_beginning_wins(grid):
    runs = planned(grid, "method=l2l,finetune evaluate.batch_size=16,32")
    source = {run.name: sweep.find_source(run, runs, planned=True) for run in runs}
    assert source["finetune,evaluate.batch_size=16"] == Path("out/l2l,evaluate.batch_size=16")
    assert source["finetune,evaluate.batch_size=32"] == Path("out/finetune,evaluate.batch_size=16")


def test_a_run_begins_only_from_what_is_there(grid, tmp_path):
    """Earlier runs may have failed; later ones may be done, by an earlier sweep."""
    runs = sweep.plan(str(grid), sweep.parse_axes(["alpha=1,2,3"]), (), tmp_path)
    assert sweep.find_source(runs[1], runs, planned=False) is None
    (runs[2].folder / "checkpoints" / "pretrain" / "3").mkdir(parents=True)
    assert sweep.find_source(runs[1], runs, planned=False) == runs[2].folder
    (runs[0].folder / "checkpoints" / "pretrain" / "3").mkdir(parents=True)
    assert sweep.find_source(runs[1], runs, planned=False) == runs[0].folder


def finish(folder, config=None):
    """Makes a workdir look finished."""
    files.write_json(folder / "results.json", {"steps": {"pretrain": [3, 3]}})
    (folder / "report.html").write_text(page.with_digest(""))
    if config:
        files.write_json(folder / "config.json", config)


def test_a_dry_run_prints_commands_and_starts_nothing(grid, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--config", str(grid), "method=l2l", "alpha=1,2", "--dry-run", "--config.seed=4"]
    sweep.main(words)
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [line[6] for line in lines] == ["runs/grid/l2l,alpha=1", "runs/grid/l2l,alpha=2"]
    assert all("--config.seed=4" in line for line in lines)
    assert lines[1][-1] == "--config.runtime.begin_from=runs/grid/l2l,alpha=1"
    assert not Path("runs").exists()
    axes = sweep.parse_axes(["method=l2l", "alpha=1,2"])
    first = sweep.plan(str(grid), axes, ["--config.seed=4"], Path("runs/grid"))[0]
    finish(first.folder, first.config)
    sweep.main([*words, "--out", "runs/grid"])
    (line,) = capsys.readouterr().out.splitlines()
    assert "alpha=2" in line, "what is finished is not done again"


def child(code):
    return [sys.executable, "-c", code]


def test_a_failure_is_one_line_with_its_log(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    children = sweep.Children(tmp_path)
    assert children.call("good", child("print('fine')")) == []
    code = "import os, sys; print(os.environ['JAX_COMPILATION_CACHE_DIR']); sys.exit('error: so')"
    (line,) = children.call("bad,a=1", child(code))
    assert line == f"bad,a=1: exit code 1, {tmp_path / 'logs' / 'bad,a=1.log'}: error: so"
    log = (tmp_path / "logs" / "bad,a=1.log").read_text()
    assert str(tmp_path / "compiled") in log
    children.call("bad,a=1", child("print('again')"))
    assert (tmp_path / "logs" / "bad,a=1.log").read_text().startswith(log), "nothing is lost"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_is_stopped_lets_its_run_save(number, grid, tmp_path, monkeypatch, capsys):
    saved, ready = tmp_path / "saved", tmp_path / "ready"
    code = f"""
import os, pathlib, signal, sys, time
def stop(*_):
    pathlib.Path({str(saved)!r}).write_text(str(os.getsid(0)))
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
pathlib.Path({str(ready)!r}).touch()
time.sleep(60)
"""
    monkeypatch.setattr(sweep.Run, "command", lambda self, source: child(code))

    def stop():
        while not ready.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(SystemExit) as ended:
        sweep.main(["--config", str(grid), "alpha=1,2", "--out", str(tmp_path / "out")])
    thread.join()
    assert ended.value.code == 128 + number
    assert saved.read_text() != str(os.getsid(0)), "a terminal's Ctrl-C is not for the run"
    out = capsys.readouterr().out
    assert "the same command continues" in out
    assert "2/2" not in out


def test_a_failing_run_stops_no_other(grid, tmp_path, monkeypatch, capsys):
    """One line for each run; at the end the failures, and the page of the finished runs."""
    monkeypatch.setattr(sweep.Run, "command", lambda self, source: child("import sys; sys.exit(3)"))
    real, called = sweep.Children.call, []

    def call(self, name, words):
        called.append((name, words))
        if name == "alpha=2":
            finish(tmp_path / "out" / name)
            return []
        return [] if name == "report" else real(self, name, words)

    monkeypatch.setattr(sweep.Children, "call", call)
    axes = ["alpha=1,2,3"]
    third = sweep.plan(str(grid), sweep.parse_axes(axes), (), tmp_path / "out")[2]
    finish(third.folder, third.config)
    with pytest.raises(SystemExit) as ended:
        sweep.main(["--config", str(grid), *axes, "--out", str(tmp_path / "out")])
    first, second = ended.value.code.splitlines()
    assert first == "Failed; the same command tries again:"
    assert second.startswith("  alpha=1: exit code 3, ")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1/3 alpha=1  FAILED  ")
    assert "about 0 min left" in lines[0]
    assert lines[1].startswith("2/3 alpha=2  ok  ")
    assert lines[2] == "3/3 alpha=3  is finished"
    assert lines[3].startswith("2 of 3 runs are finished; the page is ")
    assert [name for name, _ in called] == ["alpha=1", "alpha=2", "report"]
    assert called[-1][1][3:] == [
        *(str(tmp_path / "out" / name) for name in ("alpha=2", "alpha=3")),
        *("--out", str(tmp_path / "out" / "report.html")),
    ]


@pytest.mark.slow
def test_a_killed_sweep_continues(grid, tmp_path):
    """Real runs: two share an original, one fails; the sweep is killed during the first."""
    out = tmp_path / "out"
    words = ["--config", str(grid), "method=l2l,lost", "alpha=0.1,0.5", "--out", str(out)]
    words.append("--config.split.forget.classes=(0,1)")
    _, env = command()
    arguments = [sys.executable, str(ROOT / "launch" / "sweep.py"), *words]
    first = out / "l2l,alpha=0.1"
    killed = subprocess.Popen(arguments, env=env, cwd=ROOT, stdout=subprocess.DEVNULL)
    while not (first / "config.json").exists():
        assert killed.poll() is None
        time.sleep(0.1)
    killed.kill()
    killed.wait()
    assert not (first / "report.html").exists()
    done = subprocess.run(arguments, env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("  ")[1] for line in lines[:3]] == ["is finished", "ok", "FAILED"]
    assert "  lost: exit code 2" in done.stderr
    log = (out / "logs" / "l2l,alpha=0.5.log").read_text()
    assert f"pretrain: reused from {first}" in log
    assert (out / "logs" / "l2l,alpha=0.1.log").read_text().count("$ ") == 1, "one run, one launch"
    page = (out / "report.html").read_text()
    assert all(f"l2l,alpha={alpha}" in page for alpha in (0.1, 0.5))


def test_the_dial_of_undo_is_a_grid():
    """Runs share the phases before the first that differs; one without a step is no obstacle."""
    spec = str(ROOT / "configs" / "autoencoder_cifar10.py")
    axes = sweep.parse_axes(["method=l2l,undo,max_loss+undo", "a=0.3,0.5", "distill.steps=5,9"])
    runs = sweep.plan(f"{spec}:bundled", axes, (), Path("out"))
    dial = [f"a={a},distill.steps={steps}" for a in ("0.3", "0.5") for steps in (5, 9)]
    expected = ["l2l", *(f"{m},{d}" for m in ("undo", "max_loss+undo") for d in dial)]
    assert [run.name for run in runs] == expected
    assert runs[-1].config["phases"] == ["pretrain", "unlearn", "perturb", "distill"]
    methods = {run.name: run.config["unlearn"]["method"] for run in runs}
    assert {methods[name] for name in expected[5:]} == {"max_loss"}
    source = {run.name: sweep.find_source(run, runs, planned=True) for run in runs}
    assert source["undo,a=0.3,distill.steps=9"] == Path("out/undo,a=0.3,distill.steps=5")
    assert source["undo,a=0.5,distill.steps=5"] is not None
