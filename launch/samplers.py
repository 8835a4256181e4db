"""How few deterministic steps of a diffusion model's sampler rank models as ancestral ones do.

    python launch/samplers.py runs/a runs/b --steps 1,2,5,10,20,50 --images 50 --out samplers.json

The runs are finished workdirs that unlearn one original of the model `diffusion`, with the same
splits and first evaluation task. The original and what each run unlearned, called as its folder,
complete the same held-out images, under the same masks and from the same noise: by so many
deterministic steps (0: all), and by ancestral sampling over the whole schedule, the reference. That
runs once more with other noise: it tells two models apart whose difference is more than a margin,
twice the root mean square, over pairs, of how much their difference moves between its two runs.

PSNR (of hidden pixels) and FID are those of the project's evaluators, FID with the first run's
network; of few images it is far too large, for all samplers alike, and comparable to no other. A
model kept the retain side if its PSNR there is at most --kept dB below the original's by the same
sampler, and forgot the forget side if it is at least --forgot dB below. A verdict is settled if the
reference is further from that limit than the margin; others end in "?". Seconds: sampling alone.

Tables go to stdout as markdown, everything to --out as JSON, each model by each sampler as soon as
it is done: the same command goes on from there, also with further runs or steps.
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
from l2l_jax.engine.completions import MAIN, Completer, missing_files, networks
from l2l_jax.engine.config import complete_config
from l2l_jax.engine.experiment import Experiment, final_weights, restored, run_phases
from l2l_jax.engine.preflight import preflight
from l2l_jax.engine.run import finished
from l2l_jax.lib import cli, files, preemption, trees
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError
from l2l_jax.models.diffusion import Diffusion, build
from l2l_jax.registry import find
from l2l_jax.types import Array, Params, Source
from l2l_jax.weights.safetensors import Weights
from l2l_jax.workdir import claim

ORIGINAL, REFERENCE, AGAIN = "original", "ddpm", "ddpm, other noise"
COLUMNS = ("retain PSNR", "retain FID", "forget PSNR", "forget FID")
WORDS = {"retain": ("not kept", "kept"), "forget": ("not forgot", "forgot")}
Rows = Mapping[str, Mapping[str, float]]  # model: a row of COLUMNS and "seconds", of an image


class OtherNoise(Diffusion):
    """Samples from other noise than it would."""

    def reconstruct(self, params: Params, images: Array, mask: Array, rng: Array, *a: Any) -> Array:
        return super().reconstruct(params, images, mask, rngs.fold(rng, "other noise"), *a)


class Timed(Completer):
    """A judge that times its sampling, of variants that may be called anything, even retrained."""

    seconds, rows, program = 0.0, 0, None

    def kept(self, key: tuple[str, str, str], make: Callable[[], Any]) -> Any:
        return make()  # what comes from a cache takes no time

    def completer(self, task: str) -> Callable[..., dict[str, Array]]:
        program = super().completer(task)

        def timed(params: Params, _: Params | None, *rest: Array) -> dict[str, Array]:
            self.program = self.program or program.lower(params, None, *rest).compile()
            began = time.perf_counter()
            made = jax.block_until_ready(self.program(params, None, *rest))
            self.seconds += time.perf_counter() - began
            self.rows += len(rest[0])
            return made

        return timed


def load(folders: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Weights]]:
    """(config of the first run, what all have in common, {name: unlearned}). ConfigError if not."""
    first, shared, weights = {}, {}, {}
    for folder in folders:
        config, name = complete_config(claim.config_of(folder)), folder.resolve().name
        if (kind := config["model"]["name"]) != "diffusion":
            raise ConfigError(f"{folder} is a run of {kind}; these samplers are of diffusion.")
        if not finished(folder):
            raise ConfigError(f"{folder} is not finished: run its command again.")
        if name in (ORIGINAL, *weights):
            raise ConfigError(f"Models are called as their folders: {name!r} is taken; rename one.")
        weights[name] = final_weights(folder)
        mine = common(folder, config, weights[name])
        first, shared = first or config, shared or mine
        if said := difference(shared, mine):
            raise ConfigError(f"{folder} cannot be compared with {folders[0]}: {said}.")
    return first, shared, weights


def common(folder: Path, config: Mapping[str, Any], weights: Weights) -> dict[str, Any]:
    """What must be the same in all runs."""
    args, task = config["model"]["args"], config["evaluate"]["tasks"][0]
    return {
        "original": weights.about["source"]["original"],
        "splits": {p.stem: files.read_json(p)["digest"] for p in (folder / "splits").glob("*")},
        "model": {k: v for k, v in args.items() if k not in ("sampler", "sample_steps")},
        "data": {key: config["data"][key] for key in ("name", "args")},
        "task": {"name": task, **config["tasks"][task]},
    }


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What differs in the other of two nested dicts, in words; "" if nothing does."""
    a, b = trees.flatten(one), trees.flatten(other)
    keys = sorted(key for key in a | b if a.get(key) != b.get(key))
    return "; ".join(f"its {k} is {b.get(k)!s:.40}, not {a.get(k)!s:.40}" for k in keys[:5])


def some(split: splits.Split, source: Source, count: int, seed: int) -> splits.Split:
    """So many images of a split, or all there are: seeded, evenly over its classes."""
    rows = np.random.default_rng(rngs.seed_of(seed, split.name)).permutation(split.indices)
    rows = rows[np.argsort(source.labels[rows], kind="stable")]
    _, begins, which = np.unique(source.labels[rows], return_index=True, return_inverse=True)
    turn = np.arange(len(rows)) - begins[which]  # how many of its class come before it
    chosen = rows[np.argsort(turn, kind="stable")[:count]]
    return splits.pick(split.name, split.part, source, chosen)


def prepared(folder: Path, config: dict, count: int, to: Path) -> tuple[Experiment, dict, Params]:
    """(a run's experiment in another folder with few images, the network of FID, the original)."""
    network = config["evaluators"].get("fid", {}).get("network", MAIN)
    batches, devices = math.ceil(count / config["evaluate"]["batch_size"]), jax.device_count()
    batch = math.ceil(count / batches / devices) * devices
    networks_of = {k: v for k, v in config["networks"].items() if k == network}
    config = config | {
        "reference": "",
        "networks": networks_of,
        "evaluate": {"tasks": config["evaluate"]["tasks"][:1], "batch_size": batch},
        "evaluators": {"reconstruction": {"grids": False}, "fid": {"network": network}},
        "runtime": {**config["runtime"], "fsdp": 1},
    }
    files.write_json(to / "config.json", config)
    (to / "splits").symlink_to((folder / "splits").resolve())
    ready = preflight(config, to, preemption.Flag())
    original = run_phases(dataclasses.replace(ready, workdir=folder), restored).original
    seen, chosen = networks(ready), dict(ready.splits)  # a network of the run's own saw all splits
    if network not in seen:
        raise ConfigError(f"There is no FID without {network}: {missing_files(config)[network]}")
    for name in ("retain_eval", "forget_eval"):
        if name not in chosen or len(chosen[name].keys) < 2:
            raise ConfigError(f"{folder} has no two images in {name}: there is no FID.")
        source = ready.sources[chosen[name].part]
        chosen[name] = some(chosen[name], source, count, config["seed"])
    return dataclasses.replace(ready, splits=chosen), {network: seen[network]}, original


def under(experiment: Experiment, sampler: str, steps: int) -> Experiment:
    """The same by another sampler. ConfigError for more steps than the schedule has."""
    way = "ddpm" if sampler in (REFERENCE, AGAIN) else "ddim"
    args = experiment.config["model"]["args"] | {"sampler": way, "sample_steps": steps}
    model = OtherNoise(**vars(build(**args))) if sampler == AGAIN else build(**args)
    config = {**experiment.config, "model": {"name": "diffusion", "args": args}}
    return dataclasses.replace(experiment, model=model, config=config)


def measure(ways: dict, params: dict, network: dict, record: dict, out: Path) -> None:
    """Adds what is missing to record["figures"], {sampler: rows}. ways: {sampler: experiment}."""
    figures = {sampler: record["figures"].setdefault(sampler, {}) for sampler in ways}
    work = {s: [name for name in params if name not in rows] for s, rows in figures.items()}
    costs = {
        s: way.model.sample_steps or way.model.sample_schedule.steps for s, way in ways.items()
    }
    left, done, spent = sum(costs[s] * len(names) for s, names in work.items()), 0, 0.0
    for sampler in filter(work.get, work):
        judge = Timed(ways[sampler], params, network)
        for name in work[sampler]:
            judge.variants, judge.seconds, judge.rows, row = (name,), 0.0, 0, {}
            for evaluator, args in ways[sampler].config["evaluators"].items():
                found = find("evaluator", evaluator).evaluate(judge, **args)
                row |= {f"{side} {metric.upper()}": x for (_, side, _), metric, x in found}
            figures[sampler][name] = row | {"seconds": judge.seconds / judge.rows}
            files.write_json(out, record)
            done, spent = done + costs[sampler], spent + judge.seconds
            told = f"{judge.seconds:.3g} s, about {(left - done) * spent / done / 60:.0f} min left"
            print(f"{sampler}: {name}, {told}", file=sys.stderr, flush=True)


def begun(out: Path, about: dict[str, Any], digests: dict[str, str]) -> dict[str, Any]:
    """What --out holds so far. ConfigError if that is of other models, images or devices."""
    found = files.read_json(out) if out.exists() else {"about": about, "models": {}, "figures": {}}
    known = digests | {k: x for k, x in found["models"].items() if k in digests}
    if said := difference(found["about"] | {"models": known}, about | {"models": digests}):
        raise ConfigError(f"{out} is of another comparison than this, name another --out: {said}.")
    return {"about": about, "models": found["models"] | digests, "figures": found["figures"]}


def ranked(first: dict, other: dict, margin: float) -> dict[str, float | None]:
    """Kendall's tau of {model: value}; pairs apart by the margin, and those ordered alike."""
    tau = float(stats.kendalltau(list(first.values()), [other[name] for name in first]).statistic)
    gaps = [(first[a] - first[b], other[a] - other[b]) for a, b in combinations(first, 2)]
    alike = [here * there > 0 for here, there in gaps if abs(here) > margin]
    tau = None if math.isnan(tau) else round(tau, 3)  # of values that are all the same
    return {"tau": tau, "retrain_distance": len(alike), "alike": sum(alike)}


def spare(rows: Rows, worse: float, gone: float) -> dict[tuple[str, str], float]:
    """{(unlearned model, side): dB by which it kept or forgot that side; negative: it did not}."""
    found = {}
    for name in rows.keys() - {ORIGINAL}:
        kept, forgot = (rows[ORIGINAL][key] - rows[name][key] for key in COLUMNS[::2])
        found |= {(name, "retain"): worse - kept, (name, "forget"): forgot - gone}
    return found


def compared(figures: Mapping[str, Rows], worse: float, gone: float) -> dict[str, Any]:
    """{"margins": by figure, "ranked": by sampler and figure, and by sampler the others}."""
    margins, order = {}, {sampler: {} for sampler in figures}
    for key in COLUMNS:
        of = {s: {n: row[key] for n, row in rows.items()} for s, rows in figures.items()}
        moved = [value - of[AGAIN][name] for name, value in of[REFERENCE].items()]
        noise = [a - b for a, b in combinations(moved, 2)]  # all models have the same noise
        margins[key] = 2 * float(np.sqrt(np.mean(np.square(noise))))
        for sampler, values in of.items():
            order[sampler][key] = ranked(of[REFERENCE], values, margins[key])
    judged, settled, agrees = {}, {}, {}
    first = spare(figures[REFERENCE], worse, gone)
    clear = [cell for cell, db in first.items() if abs(db) > margins[f"{cell[1]} PSNR"]]
    for sampler, rows in figures.items():
        found = spare(rows, worse, gone)
        words = {c: WORDS[c[1]][db >= 0] + "?" * (c not in clear) for c, db in found.items()}
        models = [name for name in rows if name != ORIGINAL]
        judged[sampler] = {n: ", ".join(words[n, side] for side in WORDS) for n in models}
        alike = [(found[cell] >= 0) == (first[cell] >= 0) for cell in clear]
        settled[sampler] = {"retrain_distance": len(alike), "alike": sum(alike)}
        cells = [settled[sampler], *order[sampler].values()]
        agrees[sampler] = all(cell["alike"] == cell["retrain_distance"] for cell in cells)
    judged = {"verdicts": judged, "settled": settled, "agrees": agrees}
    return {"margins": margins, "ranked": order} | judged


def conclusion(few: Mapping[str, int], found: Mapping[str, Any]) -> str:
    """The last line. few: {sampler: its steps} of those with few; found: by compared."""
    agrees, verdicts = found["agrees"], found["settled"][REFERENCE]["retrain_distance"]
    good = takewhile(agrees.get, sorted(few, key=few.get, reverse=True))
    fewest = min((few[sampler] for sampler in good), default=None)
    begins = f"From steps={fewest} on" if fewest else "There is no number of steps from which on"
    pairs = sum(cell["retrain_distance"] for cell in found["ranked"][REFERENCE].values())
    what = f"all {verdicts} settled verdicts and {pairs} pairs told apart are as by ancestral"
    again = "they are" + " not" * (not agrees[AGAIN])
    return f"{begins} {what} sampling; by that with other noise {again}."


def table(title: str, cells: Mapping[str, Mapping[str, str]]) -> str:
    """Markdown. cells: {column: {row: text}}."""
    rows = next(iter(cells.values()))
    body = [[row, *(texts[row] for texts in cells.values())] for row in rows]
    lines = [[title, *cells], [":--", *["--:"] * len(cells)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def tables(figures: Mapping[str, Rows], found: Mapping[str, Any]) -> str:
    """Figures, verdicts, and how far they agree, as markdown."""
    parts, cells, judged, ranks = [], {}, found["verdicts"], found["ranked"].items()
    for key, margin in found["margins"].items():
        of = {s: {n: f"{row[key]:.4g}" for n, row in rows.items()} for s, rows in figures.items()}
        parts.append(table(key, of))
        of = {sampler: "{tau}; {alike} of {apart}".format(**each[key]) for sampler, each in ranks}
        cells[f"{key}: tau; pairs, margin {margin:.2g}"] = of
    settled = found["settled"].items()
    cells["verdicts settled"] = {s: "{alike} of {apart}".format(**each) for s, each in settled}
    times = {s: np.median([row["seconds"] for row in rows.values()]) for s, rows in figures.items()}
    cells["seconds an image"] = {s: f"{seconds:.3g}" for s, seconds in times.items()}
    return "\n".join([*parts, table("verdict", judged), table("as ancestral", cells)])


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of this module's docstring."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("samplers.py", description=__doc__, formatter_class=form)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--steps", default="1,2,5,10,20,50")
    parser.add_argument("--images", type=int, default=50, help="of each side")
    parser.add_argument("--kept", type=float, default=0.5)
    parser.add_argument("--forgot", type=float, default=1.0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    if args.images < 2 or not all(word.isdigit() for word in args.steps.split(",")):
        raise ConfigError("--images is 2 or more, and --steps is like 1,2,5.")
    config, about, weights = load(args.runs)
    with tempfile.TemporaryDirectory() as scratch:
        ready, network, original = prepared(args.runs[0], config, args.images, Path(scratch))
        whole = ready.model.sample_schedule.steps
        few = {f"steps={n}": n for n in sorted({int(n) or whole for n in args.steps.split(",")})}
        ways = {s: under(ready, s, n) for s, n in (few | {REFERENCE: 0, AGAIN: 0}).items()}
        held = {name: split for name, split in ready.splits.items() if name.endswith("_eval")}
        about |= {"images": {name: [len(split.keys), split.digest] for name, split in held.items()}}
        about |= {"seed": config["seed"], "batch": ready.config["evaluate"]["batch_size"]}
        about |= {
            "code": files.code_digest(),
            "devices": str(jax.devices()),
            "network": [x.about for x in network.values()],
        }
        record = begun(args.out, files.as_json(about), {n: x.digest for n, x in weights.items()})
        params = {ORIGINAL: original} | {n: ready.placed(x.params) for n, x in weights.items()}
        measure(ways, params, network, record, args.out)
    figures = {s: {name: record["figures"][s][name] for name in params} for s in ways}
    found = compared(figures, args.kept, args.forgot)
    found |= {"limits": [args.kept, args.forgot], "conclusion": conclusion(few, found)}
    files.write_json(args.out, record | found)
    counts = ", ".join(f"{len(split.keys)} images of {name}" for name, split in held.items())
    print(tables(figures, found), f"{counts}. {found['conclusion']}", sep="\n")


if __name__ == "__main__":
    cli.explained(main)
