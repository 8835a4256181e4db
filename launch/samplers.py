"""How many DDIM steps of a diffusion model are needed to rank unlearned models as DDPM does.

    python launch/samplers.py runs/a runs/b --steps 1,2,5,10,20,50 --images 50 --out samplers.json

The runs are finished workdirs that unlearn the same original of the model `diffusion`, with the
same splits and the same first evaluation task. The original and the unlearned model of each run
(named after its folder) complete the same held-out images, with the same masks and initial noise:
by DDIM with each number of steps (0: all), and by DDPM over the whole schedule, the reference. The
reference runs a second time with other noise. Two models are distinguishable if their difference
exceeds a margin: twice the root mean square, over all pairs of models, of the change of their
difference between the two DDPM runs.

PSNR (of hidden pixels) and FID come from the project's evaluators; FID uses the feature network of
the first run. FID of so few images is far too large, equally for all samplers, and cannot be
compared with any other FID. A model "kept" the retain side if its PSNR there is at most --kept dB
below the original's with the same sampler, and "forgot" the forget side if it is at least --forgot
dB below. A verdict is settled if the reference is further from that limit than the margin; other
verdicts end in "?". Seconds are those of sampling alone.

Tables go to stdout as markdown and everything to --out as JSON, which is written after every model
and sampler: the same command continues from there, also with more runs or step counts.
"""

import argparse
import dataclasses
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, takewhile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import stats

from l2l_jax.data import splits
from l2l_jax.engine import networks
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.completions import Completer
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.outcome import final_weights, restored, run_phases
from l2l_jax.engine.plan import ModelPlan, resolve
from l2l_jax.engine.preflight import preflight
from l2l_jax.engine.run import finished
from l2l_jax.lib import cli, files, preemption, trees
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError
from l2l_jax.models.diffusion import Diffusion, build
from l2l_jax.types import Array, FeatureNetwork, Images, Mask, Params, Rng, Source, Visible
from l2l_jax.weights.safetensors import Weights
from l2l_jax.workdir.layout import Workdir

ORIGINAL, REFERENCE, AGAIN = "original", "ddpm", "ddpm, other noise"
COLUMNS = ("retain PSNR", "retain FID", "forget PSNR", "forget FID")
WORDS = {"retain": ("not kept", "kept"), "forget": ("not forgot", "forgot")}
Rows = Mapping[str, Mapping[str, float]]  # {model: {column: value, "seconds": per image}}


class OtherNoise(Diffusion):
    """The same model, whose sampler draws other noise."""

    def reconstruct(
        self, params: Params, images: Images, mask: Mask, rng: Rng, visible: Visible | None = None
    ) -> Images:
        return super().reconstruct(params, images, mask, rngs.fold(rng, "other noise"), visible)


class Timed(Completer):
    """A Completer that measures the seconds of sampling and allows any names of variants."""

    seconds, rows = 0.0, 0  # seconds of sampling, and completed images, since the last reset
    compiled: Any = None  # the program of the task

    def cached(self, key: tuple[str, str, str], make: Callable[[], Any]) -> Any:
        del key  # completions from the cache would take no time
        return make()

    def program(self, task: str) -> Callable[..., dict[str, Array]]:
        complete: Any = super().program(task)

        def timed(params: Params, _: Mapping[str, Params], *rest: Array) -> dict[str, Array]:
            self.compiled = self.compiled or complete.lower(params, {}, *rest).compile()
            started = time.perf_counter()
            completed = jax.block_until_ready(self.compiled(params, {}, *rest))
            self.seconds += time.perf_counter() - started
            self.rows += len(rest[0])
            return completed

        return timed


def load(folders: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Weights]]:
    """(config of the first run, what all runs share, {name: unlearned model}).

    ConfigError if a run is unfinished, of another model, or cannot be compared with the first.
    """
    first, shared, weights = {}, {}, {}
    for folder in folders:
        config, name = complete_config(Workdir(folder).read_config()), folder.resolve().name
        if (kind := config["model"]["name"]) != "diffusion":
            raise ConfigError(f"{folder} is a run of {kind}; only diffusion models have samplers.")
        if not finished(folder):
            raise ConfigError(f"{folder} is not finished: run its command again.")
        if name in (ORIGINAL, *weights):
            raise ConfigError(
                f"Models are named after their folders, and {name!r} is taken; rename one."
            )
        own = comparable(folder, config, weights.setdefault(name, final_weights(folder)))
        first, shared = first or config, shared or own
        if text := difference(shared, own):
            raise ConfigError(f"{folder} cannot be compared with {folders[0]}: {text}.")
    return first, shared, weights


def comparable(folder: Path, config: Mapping[str, Any], weights: Weights) -> dict[str, Any]:
    """The settings of a run that must be equal in all runs."""
    args, task = config["model"]["args"], config["evaluate"]["tasks"][0]
    splits = Workdir(folder).read_splits()
    return {
        "original": weights.about["source"]["original"],
        "splits": {name: split["digest"] for name, split in splits.items()},
        "model": {k: v for k, v in args.items() if k not in ("sampler", "sample_steps")},
        "data": {key: config["data"][key] for key in ("name", "args")},
        "task": {"name": task, **config["tasks"][task]},
    }


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """In which values the second nested dict differs from the first, in words; "" if in none."""
    a, b = trees.flatten(one), trees.flatten(other)
    keys = sorted(key for key in a | b if a.get(key) != b.get(key))
    return "; ".join(f"its {k} is {b.get(k)!s:.40}, not {a.get(k)!s:.40}" for k in keys[:5])


def subset(split: splits.Split, source: Source, count: int, seed: int) -> splits.Split:
    """At most `count` images of a split: a seeded draw, spread evenly over its classes."""
    rows = np.random.default_rng(rngs.seed_of(seed, split.name)).permutation(split.indices)
    rows = rows[np.argsort(source.labels[rows], kind="stable")]
    _, starts, which = np.unique(source.labels[rows], return_index=True, return_inverse=True)
    rank = np.arange(len(rows)) - starts[which]  # position of each image within its class
    chosen = rows[np.argsort(rank, kind="stable")[:count]]
    return splits.pick(split.name, split.part, source, chosen)


def prepare(folder: Path, config: dict, count: int, scratch: Path) -> tuple[Experiment, dict, Any]:
    """(experiment of a run in a scratch workdir with few images, {name: network}, the original).

    The network is the one that FID uses; the original is on the mesh.
    """
    network = config["evaluators"].get("fid", {}).get("network", "main")
    batches, devices = math.ceil(count / config["evaluate"]["batch_size"]), jax.device_count()
    batch = math.ceil(count / batches / devices) * devices
    config = config | {
        "reference": "",
        "networks": {k: v for k, v in config["networks"].items() if k == network},
        "evaluate": {"tasks": config["evaluate"]["tasks"][:1], "batch_size": batch},
        "evaluators": {"reconstruction": {"grids": False}, "fid": {"network": network}},
        "runtime": {**config["runtime"], "fsdp": 1},
    }
    plan = resolve(config)
    files.write_json(Workdir(scratch).config, plan.config)
    Workdir(scratch).splits.symlink_to(Workdir(folder).splits.resolve())
    experiment = preflight(plan, scratch, preemption.StopSignal())
    original = run_phases(
        dataclasses.replace(experiment, workdir=Workdir(folder)), restored
    ).original
    built = networks.load(experiment)  # before the images are reduced: a classifier trains on all
    if network not in built:
        raise ConfigError(
            f"FID needs the network {network}: {networks.missing_files(plan)[network]}"
        )
    chosen = dict(experiment.splits)
    for name in ("retain_eval", "forget_eval"):
        if name not in chosen or len(chosen[name].keys) < 2:
            raise ConfigError(f"{folder} has fewer than two images in {name}; FID needs two.")
        source = experiment.sources[chosen[name].part]
        chosen[name] = subset(chosen[name], source, count, config["seed"])
    return dataclasses.replace(experiment, splits=chosen), {network: built[network]}, original


def with_sampler(experiment: Experiment, sampler: str, steps: int) -> Experiment:
    """The experiment with another sampler. ConfigError for more steps than the schedule has.

    sampler: REFERENCE, AGAIN, or any other name for DDIM with `steps` steps (0: all).
    """
    kind = "ddpm" if sampler in (REFERENCE, AGAIN) else "ddim"
    plan = experiment.plan
    args = {**plan.model.args, "sampler": kind, "sample_steps": steps}
    model = OtherNoise(**vars(build(**args))) if sampler == AGAIN else build(**args)
    config = {**plan.config, "model": {"name": "diffusion", "args": args}}
    plan = dataclasses.replace(plan, config=config, model=ModelPlan(plan.model.plugin, args))
    return dataclasses.replace(experiment, model=model, plan=plan)


def schedule_steps(experiment: Experiment) -> int:
    """The number of steps of the schedule of sampling."""
    assert isinstance(experiment.model, Diffusion)
    return experiment.model.sample_schedule.steps


def measure(
    experiments: Mapping[str, Experiment],
    params: dict[str, Params],
    network: dict[str, FeatureNetwork],
    record: dict[str, Any],
    out: Path,
) -> None:
    """Adds the missing figures to record["figures"], {sampler: rows}, and writes the record.

    experiments: by sampler. params: by model. out: the file that is written after every model.
    """
    figures = {sampler: record["figures"].setdefault(sampler, {}) for sampler in experiments}
    missing = {s: [name for name in params if name not in rows] for s, rows in figures.items()}
    costs = {
        sampler: experiment.plan.model.args["sample_steps"] or schedule_steps(experiment)
        for sampler, experiment in experiments.items()
    }
    total, done, spent = sum(costs[s] * len(names) for s, names in missing.items()), 0, 0.0
    for sampler in filter(missing.get, missing):
        completer = Timed(experiments[sampler], params, network)
        for name in missing[sampler]:
            completer.variants, completer.seconds, completer.rows, row = (name,), 0.0, 0, {}
            for planned in experiments[sampler].plan.evaluators.values():
                values = planned.evaluator.evaluate(completer, **planned.args)
                for (_, side, _), metric, x in values:  # x may be (value, interval)
                    row[f"{side} {metric.upper()}"] = x[0] if isinstance(x, tuple) else x
            figures[sampler][name] = row | {"seconds": completer.seconds / completer.rows}
            files.write_json(out, record)
            done, spent = done + costs[sampler], spent + completer.seconds
            estimate = f"about {(total - done) * spent / done / 60:.0f} min left"
            text = f"{sampler}: {name}, {completer.seconds:.3g} s, {estimate}"
            print(text, file=sys.stderr, flush=True)


def read_record(out: Path, about: dict[str, Any], digests: dict[str, str]) -> dict[str, Any]:
    """The content of --out so far: {"about", "models", "figures"}; new if there is no such file.

    about: what all figures must share. digests: {model: digest}. ConfigError if the file is of
    other models, images or devices.
    """
    new = {"about": about, "models": {}, "figures": {}}
    record = files.read_json(out) if out.exists() else new
    known = digests | {k: x for k, x in record["models"].items() if k in digests}
    if text := difference(record["about"] | {"models": known}, about | {"models": digests}):
        raise ConfigError(f"{out} holds another comparison than this, name another --out: {text}.")
    return {"about": about, "models": record["models"] | digests, "figures": record["figures"]}


def rank_agreement(
    first: Mapping[str, float], other: Mapping[str, float], margin: float
) -> dict[str, float | None]:
    """{"tau": Kendall's tau of two dicts {model: value}, "pairs", "agreeing"}.

    pairs: the number of pairs of models whose values in `first` differ by more than the margin.
    agreeing: how many of them `other` orders alike. tau is None if all values of one are equal.
    """
    statistic: Any = stats.kendalltau(list(first.values()), [other[name] for name in first])
    tau = float(statistic.statistic)
    gaps = [(first[a] - first[b], other[a] - other[b]) for a, b in combinations(first, 2)]
    agrees = [here * there > 0 for here, there in gaps if abs(here) > margin]
    counts = {"pairs": len(agrees), "agreeing": sum(agrees)}
    return {"tau": None if math.isnan(tau) else round(tau, 3)} | counts


def distances_to_limits(
    rows: Rows, kept_limit: float, forgot_limit: float
) -> dict[tuple[str, str], float]:
    """{(unlearned model, side): dB to the limit of the side's verdict}; negative: limit missed.

    kept_limit: the most retain PSNR, in dB below the original, that "kept" may lose.
    forgot_limit: the least forget PSNR, in dB below the original, that "forgot" must lose.
    """
    distances = {}
    for name in rows.keys() - {ORIGINAL}:
        retain_loss, forget_loss = (rows[ORIGINAL][key] - rows[name][key] for key in COLUMNS[::2])
        distances[name, "retain"] = kept_limit - retain_loss
        distances[name, "forget"] = forget_loss - forgot_limit
    return distances


def compare(figures: Mapping[str, Rows], kept: float, forgot: float) -> dict[str, Any]:
    """How far every sampler agrees with the reference.

    "margins" {column: value}; "ranked" {sampler: {column: rank_agreement}}; "verdicts" {sampler:
    {model: words}}; "settled" {sampler: {"pairs": settled verdicts, "agreeing"}}; "agrees"
    {sampler: whether all settled verdicts and all distinguishable pairs agree}.
    """
    margins, order = {}, {sampler: {} for sampler in figures}
    for key in COLUMNS:
        values = {s: {n: row[key] for n, row in rows.items()} for s, rows in figures.items()}
        moves = [value - values[AGAIN][name] for name, value in values[REFERENCE].items()]
        noise = [a - b for a, b in combinations(moves, 2)]  # all models get the same noise
        margins[key] = 2 * float(np.sqrt(np.mean(np.square(noise))))
        for sampler in figures:
            order[sampler][key] = rank_agreement(values[REFERENCE], values[sampler], margins[key])
    verdicts, settled, agrees = {}, {}, {}
    reference = distances_to_limits(figures[REFERENCE], kept, forgot)
    clear = [cell for cell, db in reference.items() if abs(db) > margins[f"{cell[1]} PSNR"]]
    for sampler, rows in figures.items():
        distances = distances_to_limits(rows, kept, forgot)
        words = {c: WORDS[c[1]][db >= 0] + "?" * (c not in clear) for c, db in distances.items()}
        models = [name for name in rows if name != ORIGINAL]
        verdicts[sampler] = {n: ", ".join(words[n, side] for side in WORDS) for n in models}
        alike = [(distances[cell] >= 0) == (reference[cell] >= 0) for cell in clear]
        settled[sampler] = {"pairs": len(alike), "agreeing": sum(alike)}
        cells = [settled[sampler], *order[sampler].values()]
        agrees[sampler] = all(cell["agreeing"] == cell["pairs"] for cell in cells)
    agreement = {"verdicts": verdicts, "settled": settled, "agrees": agrees}
    return {"margins": margins, "ranked": order} | agreement


def conclusion(steps: Mapping[str, int], compared: Mapping[str, Any]) -> str:
    """The last line of the output. steps: {DDIM sampler: its steps}; compared: by `compare`."""
    agrees, verdicts = compared["agrees"], compared["settled"][REFERENCE]["pairs"]
    most_first = sorted(steps, key=lambda sampler: steps[sampler], reverse=True)
    good = takewhile(lambda sampler: agrees[sampler], most_first)
    fewest = min((steps[sampler] for sampler in good), default=None)
    start = f"From steps={fewest} on" if fewest else "There is no number of steps from which on"
    pairs = sum(cell["pairs"] for cell in compared["ranked"][REFERENCE].values())
    what = f"all {verdicts} settled verdicts and {pairs} distinguishable pairs agree with DDPM"
    again = "agrees" if agrees[AGAIN] else "does not agree"
    return f"{start} {what}; DDPM with other noise {again}."


def table(title: str, columns: Mapping[str, Mapping[str, str]]) -> str:
    """A markdown table. columns: {column: {row: text}}."""
    rows = next(iter(columns.values()))
    body = [[row, *(texts[row] for texts in columns.values())] for row in rows]
    lines = [[title, *columns], [":--", *["--:"] * len(columns)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def tables(figures: Mapping[str, Rows], compared: Mapping[str, Any]) -> str:
    """Figures, verdicts and the agreement of the samplers, as markdown tables."""
    parts, columns, agreement = [], {}, compared["ranked"].items()
    for key, margin in compared["margins"].items():
        values = {
            s: {n: f"{row[key]:.4g}" for n, row in rows.items()} for s, rows in figures.items()
        }
        parts.append(table(key, values))
        columns[f"{key}: tau; pairs, margin {margin:.2g}"] = {
            s: "{tau}; {agreeing} of {pairs}".format(**cells[key]) for s, cells in agreement
        }
    settled = compared["settled"].items()
    columns["verdicts settled"] = {s: "{agreeing} of {pairs}".format(**cell) for s, cell in settled}
    columns["seconds an image"] = {
        sampler: f"{np.median([row['seconds'] for row in rows.values()]):.3g}"
        for sampler, rows in figures.items()
    }
    parts += [table("verdict", compared["verdicts"]), table("agreement with DDPM", columns)]
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this module's docstring."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("samplers.py", description=__doc__, formatter_class=form)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--steps", default="1,2,5,10,20,50")
    parser.add_argument("--images", type=int, default=50, help="images of each side")
    parser.add_argument("--kept", type=float, default=0.5)
    parser.add_argument("--forgot", type=float, default=1.0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    if args.images < 2 or not all(word.isdigit() for word in args.steps.split(",")):
        raise ConfigError("--images is 2 or more, and --steps is a list such as 1,2,5.")
    config, about, weights = load(args.runs)
    with tempfile.TemporaryDirectory() as scratch:
        experiment, network, original = prepare(args.runs[0], config, args.images, Path(scratch))
        whole = schedule_steps(experiment)
        steps = {f"steps={n}": n for n in sorted({int(n) or whole for n in args.steps.split(",")})}
        counts = steps | {REFERENCE: 0, AGAIN: 0}
        experiments = {s: with_sampler(experiment, s, count) for s, count in counts.items()}
        used = {k: split for k, split in experiment.splits.items() if k.endswith("_eval")}
        about |= {
            "images": {name: [len(split.keys), split.digest] for name, split in used.items()},
            "seed": config["seed"],
            "batch": experiment.config["evaluate"]["batch_size"],
            "code": files.code_digest(),
            "devices": str(jax.devices()),
            "network": [each.about for each in network.values()],
        }
        digests = {name: each.digest for name, each in weights.items()}
        record = read_record(args.out, files.as_json(about), digests)
        placed = {name: experiment.place(each.params) for name, each in weights.items()}
        params = {ORIGINAL: original} | placed
        measure(experiments, params, network, record, args.out)
    figures = {s: {name: record["figures"][s][name] for name in params} for s in experiments}
    compared = compare(figures, args.kept, args.forgot)
    compared |= {"limits": [args.kept, args.forgot], "conclusion": conclusion(steps, compared)}
    files.write_json(args.out, record | compared)
    images = ", ".join(f"{len(split.keys)} images of {name}" for name, split in used.items())
    print(tables(figures, compared), f"{images}. {compared['conclusion']}", sep="\n")


if __name__ == "__main__":
    cli.run_with_clear_errors(main)
