"""Runs the grid of its axes: every method with every value, for every seed.

    python launch/sweep.py --config configs/fashion_mnist.py \\
        method=l2l,max_loss,noisy_label alpha=0.1,0.25,1 seed=0,1,2
    python launch/sweep.py --config configs/autoencoder_cifar10.py:bundled \\
        method=retrain,l2l,ascent seed=0,1 --out runs/ae --dry-run --config.pretrain.steps=300

    method          words of the config's form, such as l2l or max_loss
    seed, a.b.c     config.seed, config.a.b.c, such as unlearn.optimizer.lr=1e-4,3e-4
    alpha, share    config.unlearn.solver_args.alpha, ....share (of l2l and its like; of siss)
    r               config.walk.solver_args.r (of epsilon)

A method that does not have an axis runs once without it. --config.key=value goes to every run, but
to those without the phase it is of: what a method has for phases, its word in the config says.
Each run is a process with the workdir OUT/<name>, such as OUT/max_loss,alpha=0.25,seed=1, and the
log OUT/logs/<name>.log. OUT is runs/<name of the config> unless --out says otherwise. Of each seed
`retrain` is first, and the reference of the others; phases that runs have in common are done by the
first that has them (engine/reuse.py). A run that fails stops no other; OUT/report.html compares
all that finished. The same command goes on after Ctrl-C, kill -9 or a failure.

--dry-run prints a command a line in place of running it, for a cluster. A line may name the workdir
of an earlier one: that one comes first, or the later one stops and says that it finds no run there.
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
from l2l_jax.engine.plan import complete_config, resolve
from l2l_jax.engine.run import finished
from l2l_jax.lib import cli, files, trees
from l2l_jax.lib.errors import ConfigError, did_you_mean
from l2l_jax.registry import find
from l2l_jax.workdir import claim

SHORT = {
    "alpha": "unlearn.solver_args.alpha",
    "r": "walk.solver_args.r",
    "share": "unlearn.solver_args.share",
}
RETRAIN = "retrain"  # the method whose runs are the reference of all others
USAGE = "%(prog)s --config FILE.py[:FORM] [--out OUT] [--dry-run] AXIS=VALUE,VALUE... [overrides]"
Axes = dict[str, list[str]]


class Run(NamedTuple):
    """One point of the grid. config: as the run itself will resolve it, as JSON."""

    name: str
    spec: str
    overrides: tuple[str, ...]
    folder: Path
    config: Mapping[str, Any]

    def command(self, source: Path | None) -> list[str]:
        words = ["--config", self.spec, "--workdir", str(self.folder), *self.overrides]
        words += [f"--config.runtime.begin_from={source}"] if source else []
        return [sys.executable, "-m", "l2l_jax.main", *words]


def axes_of(words: Sequence[str]) -> Axes:
    """["alpha=0.1,1"] -> {"alpha": ["0.1", "1"]}; a comma inside of brackets separates nothing."""
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
        twice = name in axes or len(set(values)) < len(values)
        if twice or "" in values or not re.match(r"\w", name):
            raise ConfigError(f"{word!r} is no axis; say alpha=0.1,0.25, each name and value once.")
        axes[name] = values
    return axes


def has(config: Mapping[str, Any], axis: str) -> bool:
    """Whether there is such a value, and its phase, if it is in one, reads it.

    A phase that is not one of config.phases reads nothing, a solver with one objective none of its
    arguments.
    """
    key = SHORT.get(axis, axis).replace(".", "/")
    (first, *rest), flat = key.split("/"), trees.flatten(config)
    if key not in flat or f"{first}/method" not in flat:
        return key in flat
    sides = find("method", config[first]["method"]).SIDES
    return first in config["phases"] and (rest[0] != "solver_args" or len(sides) == 2)


def resolved(spec: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The config that l2l_jax.main would run, as JSON. ConfigError for what it would refuse."""
    argv = ["sweep.py", *overrides]
    config = ml_collections.ConfigDict(flags.with_names(cli.load_config(spec), argv))
    flags.check_keys(config, argv, spec)
    given = absl_flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=given, sys_argv=argv)
    try:
        given(argv)
    except (absl_flags.Error, ValueError, TypeError) as error:
        raise ConfigError(f"{spec}: {error}") from error
    config = complete_config(given.config)
    resolve(config)
    return files.as_json(config)


def methods_of(
    spec: str, axes: Axes, given: Sequence[str]
) -> list[tuple[str, str, list[str], list[str]]]:
    """(name, FILE:FORM, axes but for the seed, overrides) of each method, in their order.

    Overrides of a phase that a method does not have are left out of its runs, and it is said.
    """
    file, _, form = spec.partition(":")
    others, methods = [axis for axis in axes if axis not in ("method", "seed")], []
    unread = set(given)
    for name in sorted(axes.get("method", [""]), key=lambda name: name != RETRAIN):
        whole = ":".join(filter(None, (file, ",".join(filter(None, (form, name))))))
        config = resolved(whole, given)
        if idle := flags.idle(config, given):
            print(f"{name}: left out of it: {flags.nowhere(idle, config)}", file=sys.stderr)
        unread &= set(idle)
        words = [word for word in given if word not in idle]
        methods.append((name, whole, [axis for axis in others if has(config, axis)], words))
    if unread:
        raise ConfigError(f"No run has the phase of {' '.join(sorted(unread))}.")
    for axis in sorted(set(others).difference(*(mine for *_, mine, _ in methods))):
        hint = did_you_mean(axis, ["method", "seed", *SHORT])
        raise ConfigError(f"No run has the axis {axis!r}: {SHORT.get(axis, axis)}.{hint}")
    if methods[0][0] == RETRAIN and (axis := ", ".join(methods[0][2])):
        raise ConfigError(f"There is one {RETRAIN} a seed: give one value, --config.{axis}=VALUE.")
    return methods


def plan(spec: str, axes: Axes, given: Sequence[str], out: Path) -> list[Run]:
    """All runs, in order. ConfigError, before any runs, for what one of them would refuse."""
    runs, reference = [], []
    seeds, methods = axes.get("seed", [""]), methods_of(spec, axes, given)
    for seed, (method, whole, mine, overrides) in itertools.product(seeds, methods):
        for values in itertools.product(*(axes[axis] for axis in mine)):
            point = [*zip(mine, values, strict=True), *([("seed", seed)] if seed else [])]
            told = [method] * bool(method) + [f"{axis}={value}" for axis, value in point]
            name = re.sub(r"[^\w.=,+-]", "_", ",".join(told))
            words = [*overrides, *(f"--config.{SHORT.get(axis, axis)}={v}" for axis, v in point)]
            if method == RETRAIN:
                reference = [f"--config.reference={out / name}"]
            words += reference if method != RETRAIN else []
            runs.append(Run(name, whole, tuple(words), out / name, resolved(whole, words)))
            claim.check_config_matches(out / name, runs[-1].config)
    if len({run.name for run in runs}) < len(runs):
        raise ConfigError("Two runs would have the same name: some values differ only in signs.")
    return runs


def source_of(run: Run, runs: Sequence[Run], planned: bool) -> Path | None:
    """The first workdir that did most of a run's first phases; planned: or will have, before it."""

    def count(other: Run) -> int:
        same = reuse.shared(other.config, run.config)
        if planned and runs.index(other) < runs.index(run):
            return len(same)
        there = [reuse.done(other.folder, phase, run.config[phase]["steps"]) for phase in same]
        return [*there, False].index(False)

    best = max((other for other in runs if other is not run), key=count, default=run)
    return best.folder if best is not run and count(best) else None


class Children:
    """One process after the other. SIGINT and SIGTERM are passed on, so that it saves and ends."""

    def __init__(self, out: Path):
        self.signal, self._logs, self._child = 0, out / "logs", None
        programs = {"JAX_COMPILATION_CACHE_DIR": str(out.absolute() / "compiled")}
        self._environment = programs | dict(os.environ)
        self._logs.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def _stop(self, number: int, _: Any) -> None:
        self.signal = number
        if self._child:
            self._child.terminate()

    def wait_until_free(self, folder: Path) -> None:
        """Until nobody works in a workdir: a sweep that was killed leaves its last run alive."""
        while not self.signal:
            try:
                with claim.lock(folder):
                    return
            except ConfigError:
                time.sleep(0.5)

    def call(self, name: str, words: Sequence[str]) -> list[str]:
        """Runs it to its end; [], or [how it failed, with its log and the last line of that]."""
        path = self._logs / f"{name}.log"
        with path.open("a") as log:
            print(f"$ {shlex.join(words)}", file=log, flush=True)
            streams = dict(stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            self._child = subprocess.Popen(  # a terminal's Ctrl-C is for this process alone
                words, env=self._environment, start_new_session=True, **streams
            )
        if self.signal:
            self._child.terminate()
        code, self._child = self._child.wait(), None
        *_, last = path.read_text(errors="replace").strip().splitlines()
        return [f"{name}: exit code {code}, {path}: {last[:300]}"] if code else []


def run_all(runs: Sequence[Run], children: Children) -> list[str]:
    """Runs what is not finished, a line for each; returns what is to be said of those that fail."""
    failures, spent = [], []
    for at, run in enumerate(runs, 1):
        print(f"{at}/{len(runs)} {run.name}  ", end="", flush=True)
        children.wait_until_free(run.folder)
        if children.signal:
            break
        if finished(run.folder):
            print("is finished", flush=True)
            continue
        began = time.monotonic()
        failed = children.call(run.name, run.command(source_of(run, runs, planned=False)))
        if children.signal:
            break
        failures += failed
        spent.append(time.monotonic() - began)
        left = sum(not finished(other.folder) for other in runs[at:]) * sum(spent) / len(spent)
        told = f", about {left / 60:.0f} min left" if left else ""
        print(f"{'FAILED' if failed else 'ok'}  {spent[-1]:.0f} s{told}", flush=True)
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
    jax.config.update("jax_platforms", "cpu")  # of this process: accelerators are for the runs
    given = [word for word in rest if re.match(r"--(no)?config\.", word)]
    axes = axes_of([word for word in rest if word not in given])
    out = args.out or Path("runs") / Path(args.config.partition(":")[0]).stem
    runs = plan(args.config, axes, given, out)
    if args.dry_run:
        for run in (run for run in runs if not finished(run.folder)):
            print(shlex.join(run.command(source_of(run, runs, planned=True))))
        return
    children = Children(out)
    failures = run_all(runs, children)
    if children.signal:
        print("\nStopped; what is done is saved, and the same command goes on.")
        sys.exit(128 + children.signal)
    if made := [str(run.folder) for run in runs if finished(run.folder)]:
        page = [sys.executable, "-m", "l2l_jax.report", *made, "--out", str(out / "report.html")]
        failures += children.call("report", page)
        print(f"{len(made)} of {len(runs)} runs are finished; the page is {page[-1]}")
    if failures:
        sys.exit("\n  ".join(["Failed; the same command tries again:", *failures]))


if __name__ == "__main__":
    cli.explained(main)
