"""Workdirs as a finished run leaves them, made without running anything."""

import copy
import dataclasses

import numpy as np
from PIL import Image

from l2l_jax.lib import files
from l2l_jax.registry import find

HOSTILE = "<script>alert(1)</script>"
EVALUATORS = ("fid", "inception_score", "cosine", "reconstruction", "output_distance")


def figures(*evaluators):
    """results["figures"] of a run with these evaluators."""
    described = (figure for name in evaluators for figure in find("evaluator", name).FIGURES)
    return {figure.name: dataclasses.asdict(figure) for figure in described}


def cell(fid, psnr, **more):
    return {"fid": fid, "is": 3.0, "is_std": 0.1, "cosine": 0.9, "psnr": psnr, "l1": 0.05} | more


def phase(method="l2l", solver="weighted", steps=4, args=None, **solver_args):
    return dict(
        method=method, solver=solver, steps=steps, batch_size=8, args=args or {},
        solver_args=solver_args,
    )  # fmt: skip


def training(variants):
    """results["training"]: of each variant but the unlearned model."""
    about = dict(splits="60 images, split retain of fake", images=60, passes=2.0, steps=4,
                 tokenizer="", loaded=None, phases={})  # fmt: skip
    return {variant: dict(about) for variant in variants if variant != "unlearned"}


def make(folder, seed=0, phases=None, tasks=None, **more):
    """Writes the workdir of a run, with a class of a hostile name; returns the folder.

    phases: {name: phase(...)}; tasks: {variant: {side: cell(...)}} of the task center; more: other
    entries of results.json, such as cost and ended.
    """
    phases = phases or {"unlearn": phase()}
    config = dict(phases=list(phases), **phases, data=dict(name="fashion_mnist"), seed=seed,
                  model=dict(name="mae", args=dict(size="small")),
                  tasks=dict(center=dict(task="center", args=dict(cells=2))),
                  evaluate=dict(tasks=["center"]), runtime=dict(fsdp=1),
                  split=dict(forget=dict(files=""), retain=dict(files=""), seed=0))  # fmt: skip
    files.write_json(folder / "config.json", config)
    launch = dict(git="abc", code="e" * 64, packages={"jax": "0.10.2"}, devices="1 x cpu")
    files.write_json(folder / "versions.json", launch | dict(continued_with=[]))
    task = tasks or {
        "original": {"retain": cell(10.0, 20.0), "forget": cell(12.0, 19.0)},
        "unlearned": {"retain": cell(11.0, 19.8), "forget": cell(60.0, 9.0)},
    }
    classes = {"forget_eval": [HOSTILE, "Bag"], "retain_eval": ["Coat"]}
    digests = {
        "original": "0" * 64,
        "unlearned": "1" * 64,
        "retrained": "3" * 64,
        "retrained_2": "4" * 64,
    }
    results = {
        **task, "audits": {}, "steps": {p: [s["steps"]] * 2 for p, s in phases.items()},
        "seconds": {**dict.fromkeys(phases, 10.0), "evaluate": 5.0},
        "trained_on": ["forget", "retain"],
        "task": "center", "tasks": {"center": task}, "classes": classes,
        "counts": {"retain": 60, "forget": 40},
        "networks": {"main": {"name": "classifier", "digest": "f" * 64, "accuracy": 0.88}},
        "measured": {"fid": {"evaluator": "fid", "network": "main"}},
        "figures": figures(*EVALUATORS),
        "cost": {p: {"seconds": 10.0, "steps": s["steps"]} for p, s in phases.items()},
        "ended": {}, "tokenizer": None, "skipped": {}, "passes": {}, "evaluated": {},
        "sampling": "one pass", "unclean": {}, "training": training(task),
        "intervals": {"center": {v: {side: {} for side in each} for v, each in task.items()}},
        "sets": {s: {"part": "eval", "images": n, "of": n, "digest": "a", "trained_on": False}
                 for s, n in (("retain", 60), ("forget", 40))},
        "digests": {"code": "c" * 64, "weights": {v: digests[v] for v in task}, "splits": {}},
        **more,
    }  # fmt: skip
    files.write_json(folder / "results.json", results)
    split = dict(part="train", count=3, digest="d" * 64, classes=["Bag"], skipped=[], keys=[])
    for name in ("forget", "forget_eval", "retain_eval"):
        part = "eval" if "eval" in name else "train"
        files.write_json(folder / "splits" / f"{name}.json", split | dict(part=part))
    lines = [
        f'{{"phase": "{p}", "step": {i}, "retain": {i}, "forget": {4 - i}}}\n'
        for p in phases
        for i in range(4)
    ]
    (folder / "metrics.jsonl").write_text("".join(lines))
    groups = [dict(variant=v, side=s, points=[[0, 1], [2, 3]])
              for v in task for s in ("retain", "forget")]  # fmt: skip
    files.write_json(folder / "tsne.json", dict(task="center", perplexity=20, groups=groups))
    sheet(folder, "center_forget", [seed, 10 + seed, *range(50, 50 + 10 * len(task), 10)])
    return folder


def sheet(folder, name, shades, width=40):
    """images/<name>.png: rows of one shade each, ten pixels high."""
    rows = np.repeat(np.array(shades, np.uint8), 10)
    image = np.broadcast_to(rows[:, None, None], (len(rows), width, 3))
    (folder / "images").mkdir(exist_ok=True)
    Image.fromarray(np.ascontiguousarray(image)).save(folder / "images" / f"{name}.png")


def change(folder, name, path, value):
    """Sets one value of a JSON file of a run."""
    content = node = files.read_json(folder / name)
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = copy.deepcopy(value)
    files.write_json(folder / name, content)
