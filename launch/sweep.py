"""Runs an experiment for every point of a grid: every method with every value, for every seed.

    python launch/sweep.py --config configs/fashion_mnist.py \\
        method=l2l,max_loss,noisy_label alpha=0.1,0.25,1 seed=0,1,2
    python launch/sweep.py --config configs/autoencoder_cifar10.py:bundled \\
        method=retrain,l2l,ascent seed=0,1 --out runs/ae --dry-run --config.pretrain.steps=300

Axes of the grid:

    method          form words of the config, such as l2l or max_loss; a + joins words, such as
                    max_loss+undo
    seed, a.b.c     config.seed, config.a.b.c, such as unlearn.optimizer.lr=1e-4,3e-4
    alpha, share    config.unlearn.solver_args.alpha and .share (alpha: l2l and most methods; share:
                    siss)
    r               config.tradeoff.solver_args.r (epsilon)
    a               config.perturb.args.a (undo); distill.steps is the other axis of its dial

A method that does not read an axis runs once without it. --config.key=value goes to every run,
except to runs that do not have the phase of that key; the form word decides which phases a run has.

Each run is a process with the workdir OUT/<name>, such as OUT/max_loss,alpha=0.25,seed=1, and the
log OUT/logs/<name>.log. OUT is runs/<name of the config> unless --out is given. For each seed the
method `retrain` runs first, and its model is the reference of the other runs. Phases that several
runs share are computed once and reused by the other runs (engine/reuse.py). A run that fails does
not stop the others. OUT/report.html compares all finished runs. After Ctrl-C, kill -9 or a failure
the same command continues the grid.

--dry-run prints one command per line instead of running it, for a cluster. A command may name the
workdir of an earlier command. Then the earlier one must run first; otherwise the later one stops
and reports that the workdir holds no run.
"""

import argparse
import itertools
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
from absl import flags as absl_flags
from ml_collections import config_flags

from l2l_jax import flags
from l2l_jax.engine import reuse
from l2l_jax.engine.plan import resolve
from l2l_jax.engine.run import finished
from l2l_jax.lib import cli, files, trees
from l2l_jax.lib.errors import ConfigError, did_you_mean
from l2l_jax.registry import find
from l2l_jax.workdir import claim

SHORT = {
    "a": "perturb.args.a",
    "alpha": "unlearn.solver_args.alpha",
    "r": "tradeoff.solver_args.r",
    "share": "unlearn.solver_args.share",
}
RETRAIN = "retrain"  # the method whose model is the reference of all other runs of a seed
USAGE = "%(prog)s --config FILE.py[:FORM] [--out OUT] [--dry-run] AXIS=VALUE,VALUE... [overrides]"
Axes = dict[str, list[str]]  # values of each axis, as text


class MethodPlan(NamedTuple):
    """What all runs of one method share."""

    name: str  # a form word, or "" for the config as given
    spec: str  # FILE.py:FORM with the form word
    axes: list[str]  # the axes that the method reads, without "method" and "seed"
    overrides: list[str]  # the overrides that the method reads


class Run(NamedTuple):
    """One point of the grid."""

    name: str
    spec: str  # FILE.py:FORM
    overrides: tuple[str, ...]  # --config.key=value
    folder: Path  # the workdir
    config: Mapping[str, Any]  # the complete config of the run, as JSON

    def command(self, source: Path | None) -> list[str]:
        """The command line of the run. source: the workdir whose phases it reuses, if any."""
        words = ["--config", self.spec, "--workdir", str(self.folder), *self.overrides]
        words += [f"--config.runtime.begin_from={source}"] if source else []
        return [sys.executable, "-m", "l2l_jax.main", *words]


def parse_axes(words: Sequence[str]) -> Axes:
    """["alpha=0.1,1"] -> {"alpha": ["0.1", "1"]}; commas inside brackets do not separate values.

    ConfigError for a word without values, or if a name or a value occurs twice.
    """
    axes: Axes = {}
    for word in words or [""]:
        name, _, text = word.partition("=")
        values, depth = [""], 0
        for letter in text:
            depth += (letter in "([{") - (letter in ")]}")
            if letter == "," and not depth:
                values.append("")
            else:
                values[-1] += letter
        repeated = name in axes or len(set(values)) < len(values)
        if repeated or "" in values or not re.match(r"\w", name):
            raise ConfigError(
                f"{word!r} is no axis; write alpha=0.1,0.25, with each name and value once."
            )
        axes[name] = values
    return axes


def reads_axis(config: Mapping[str, Any], axis: str) -> bool:
    """Whether the config has the key of an axis and the run reads it.

    A key of a phase that is not in config.phases is not read. The arguments of a solver are not
    read if the method of the phase has one objective only.
    """
    key = SHORT.get(axis, axis).replace(".", "/")
    (first, *rest), flat = key.split("/"), trees.flatten(config)
    if key not in flat or f"{first}/method" not in flat:
        return key in flat
    sides = find("method", config[first]["method"]).SIDES
    return first in config["phases"] and (rest[0] != "solver_args" or len(sides) == 2)


def resolve_config(spec: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The complete config of a command line of l2l_jax.main, as JSON.

    Raises the ConfigError that l2l_jax.main would raise.
    """
    argv = ["sweep.py", *overrides]
    config = ml_collections.ConfigDict(flags.with_names(cli.load_config(spec), argv))
    flags.check_keys(config, argv, spec)
    values = absl_flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    try:
        values(argv)
    except (absl_flags.Error, ValueError, TypeError) as error:
        raise ConfigError(f"{spec}: {error}") from error
    return files.as_json(resolve(values.config).config)


def plan_methods(spec: str, axes: Axes, overrides: Sequence[str]) -> list[MethodPlan]:
    """One entry per method, retrain first.

    Overrides of a phase that a method does not have are left out of its runs; a line on stderr
    names them. ConfigError for an axis or an override that no method reads.
    """
    file, _, form = spec.partition(":")
    value_axes = [axis for axis in axes if axis not in ("method", "seed")]
    methods: list[MethodPlan] = []
    unread = set(overrides)
    for name in sorted(axes.get("method", [""]), key=lambda name: name != RETRAIN):
        words = ",".join(filter(None, (form, name.replace("+", ","))))
        full_spec = ":".join(filter(None, (file, words)))
        config = resolve_config(full_spec, overrides)
        if unused := flags.unused(config, overrides):
            text = flags.unused_message(unused, config)
            print(f"{name}: left out of it: {text}", file=sys.stderr)
        unread &= set(unused)
        own_axes = [axis for axis in value_axes if reads_axis(config, axis)]
        used = [word for word in overrides if word not in unused]
        methods.append(MethodPlan(name, full_spec, own_axes, used))
    if unread:
        raise ConfigError(f"No run has the phase of {' '.join(sorted(unread))}.")
    for axis in sorted(set(value_axes).difference(*(method.axes for method in methods))):
        hint = did_you_mean(axis, ["method", "seed", *SHORT])
        raise ConfigError(f"No run has the axis {axis!r}: {SHORT.get(axis, axis)}.{hint}")
    if methods[0].name == RETRAIN and (axis := ", ".join(methods[0].axes)):
        raise ConfigError(
            f"There is one {RETRAIN} a seed, so that {axis} can have one value only: write "
            f"--config.{axis}=VALUE."
        )
    return methods


def plan(spec: str, axes: Axes, overrides: Sequence[str], out: Path) -> list[Run]:
    """All runs, in the order in which they run.

    Raises, before anything runs, the ConfigError that any of the runs would raise.
    """
    runs, reference = [], []
    seeds, methods = axes.get("seed", [""]), plan_methods(spec, axes, overrides)
    for seed, method in itertools.product(seeds, methods):
        for values in itertools.product(*(axes[axis] for axis in method.axes)):
            point = [*zip(method.axes, values, strict=True), *([("seed", seed)] if seed else [])]
            parts = [method.name] * bool(method.name) + [f"{axis}={text}" for axis, text in point]
            name = re.sub(r"[^\w.=,+-]", "_", ",".join(parts))
            words = [f"--config.{SHORT.get(axis, axis)}={text}" for axis, text in point]
            words = [*method.overrides, *words]
            if method.name == RETRAIN:
                reference = [f"--config.reference={out / name}"]
            else:
                words += reference
            config = resolve_config(method.spec, words)
            runs.append(Run(name, method.spec, tuple(words), out / name, config))
            claim.check_config_matches(out / name, config)
    if len({run.name for run in runs}) < len(runs):
        raise ConfigError(
            "Two runs would have the same name: some values differ only in characters that a file "
            "name cannot hold."
        )
    return runs


def find_source(run: Run, runs: Sequence[Run], planned: bool) -> Path | None:
    """The workdir from which a run can reuse the most phases; None if there is none.

    planned: assume that all runs before this one are done.
    """

    def reusable(other: Run) -> int:
        same = reuse.shared(other.config, run.config)
        if planned and runs.index(other) < runs.index(run):
            return len(same)
        done = [
            reuse.done(other.folder, phase, run.config[phase]["steps"])
            or find("method", run.config[phase]["method"]).begin is not None
            for phase in same
        ]
        return [*done, False].index(False)

    best = max((other for other in runs if other is not run), key=reusable, default=run)
    return best.folder if best is not run and reusable(best) else None


class Children:
    """Runs one child process at a time.

    SIGINT and SIGTERM are passed on to the child as SIGTERM, so that it saves its state and ends.
    """

    def __init__(self, out: Path):
        self.signal = 0  # the number of the signal that was received, or 0
        self._logs = out / "logs"
        self._child: subprocess.Popen[bytes] | None = None
        compiled = {"JAX_COMPILATION_CACHE_DIR": str(out.absolute() / "compiled")}
        self._environment = compiled | dict(os.environ)
        self._logs.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def _stop(self, number: int, _: Any) -> None:
        self.signal = number
        if self._child:
            self._child.terminate()

    def wait_until_free(self, folder: Path) -> None:
        """Waits until no process works in a workdir.

        The last run of a sweep that was killed may still be alive.
        """
        while not self.signal:
            try:
                with claim.lock(folder):
                    return
            except ConfigError:
                time.sleep(0.5)

    def call(self, name: str, words: Sequence[str]) -> list[str]:
        """Runs a command to its end.

        Returns [] if it succeeds, otherwise [a line with its exit code, log and last output].
        """
        path = self._logs / f"{name}.log"
        with path.open("a") as log:
            print(f"$ {shlex.join(words)}", file=log, flush=True)
            child = subprocess.Popen(
                words,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal reaches this process only
            )
        self._child = child
        if self.signal:
            child.terminate()
        code, self._child = child.wait(), None
        *_, last = path.read_text(errors="replace").strip().splitlines()
        return [f"{name}: exit code {code}, {path}: {last[:300]}"] if code else []


def run_all(runs: Sequence[Run], children: Children) -> list[str]:
    """Runs all unfinished runs and prints one line for each; returns one line per failure."""
    failures, durations = [], []
    for number, run in enumerate(runs, 1):
        print(f"{number}/{len(runs)} {run.name}  ", end="", flush=True)
        children.wait_until_free(run.folder)
        if children.signal:
            break
        if finished(run.folder):
            print("is finished", flush=True)
            continue
        started = time.monotonic()
        failed = children.call(run.name, run.command(find_source(run, runs, planned=False)))
        if children.signal:
            break
        failures += failed
        durations.append(time.monotonic() - started)
        unfinished = sum(not finished(other.folder) for other in runs[number:])
        left = unfinished * sum(durations) / len(durations)
        estimate = f", about {left / 60:.0f} min left" if left else ""
        print(f"{'FAILED' if failed else 'ok'}  {durations[-1]:.0f} s{estimate}", flush=True)
    return failures


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this module's docstring."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("sweep.py", USAGE, __doc__, formatter_class=form)
    parser.add_argument("--config", required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    args, rest = parser.parse_known_args(argv)
    logging.getLogger("l2l_jax").setLevel(logging.WARNING)
    jax.config.update("jax_platforms", "cpu")  # this process leaves the accelerators to the runs
    overrides = [word for word in rest if re.match(r"--(no)?config\.", word)]
    axes = parse_axes([word for word in rest if word not in overrides])
    out = args.out or Path("runs") / Path(args.config.partition(":")[0]).stem
    runs = plan(args.config, axes, overrides, out)
    if args.dry_run:
        for run in (run for run in runs if not finished(run.folder)):
            print(shlex.join(run.command(find_source(run, runs, planned=True))))
        return
    children = Children(out)
    failures = run_all(runs, children)
    if children.signal:
        print("\nStopped; finished work is saved, and the same command continues the grid.")
        sys.exit(128 + children.signal)
    if done := [str(run.folder) for run in runs if finished(run.folder)]:
        page = [sys.executable, "-m", "l2l_jax.report", *done, "--out", str(out / "report.html")]
        failures += children.call("report", page)
        print(f"{len(done)} of {len(runs)} runs are finished; the page is {page[-1]}")
    if failures:
        sys.exit("\n  ".join(["Failed; the same command tries again:", *failures]))


if __name__ == "__main__":
    cli.run_with_clear_errors(main)
