"""Workdirs as a finished run leaves them, made without running anything."""

import base64
import copy
import dataclasses
import hashlib
import json
import re

import numpy as np
from PIL import Image

from l2l_jax.lib import files
from l2l_jax.registry import find
from l2l_jax.report.document import script
from tests.report import planted

HOSTILE = "<script>alert(1)</script>"
JSON_FILES = (
    "config.json", "versions.json", "results.json", "splits/forget_eval.json", "tsne.json",
)  # fmt: skip
EVALUATORS = ("fid", "inception_score", "cosine", "reconstruction", "output_distance")


def figures(*evaluators):
    """results["figures"] of a run with these evaluators."""
    described = (figure for name in evaluators for figure in find("evaluator", name).FIGURES)
    return {figure.name: dataclasses.asdict(figure) for figure in described}


def without_script(page):
    """The page without its only script, which must be the one that its policy permits."""
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert scripts == [script()]
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert page.count(f"script-src 'sha256-{digest}';") == 1
    return page.replace(f"<script>{scripts[0]}</script>", "")


def write(path, value):
    """Writes JSON as runs do; without a digest if it holds halves of UTF-16 pairs."""
    try:
        files.write_json(path, value)
    except UnicodeEncodeError:
        path.write_text(json.dumps(value))


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
    write(folder / "config.json", config)
    launch = dict(git="abc", code="e" * 64, packages={"jax": "0.10.2"}, devices="1 x cpu")
    write(folder / "versions.json", launch | dict(continued_with=[]))
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
    write(folder / "results.json", results)
    split = dict(part="train", count=3, digest="d" * 64, classes=["Bag"], skipped=[], keys=[])
    for name in ("forget", "forget_eval", "retain_eval"):
        part = "eval" if "eval" in name else "train"
        write(folder / "splits" / f"{name}.json", split | dict(part=part))
    lines = [
        json.dumps(dict(phase=p, step=i, retain=i, forget=4 - i)) + "\n"
        for p in phases
        for i in range(4)
    ]
    (folder / "metrics.jsonl").write_text("".join(lines))
    groups = [dict(variant=v, side=s, points=[[0, 1], [2, 3]])
              for v in task for s in ("retain", "forget")]  # fmt: skip
    write(folder / "tsne.json", dict(task="center", perplexity=20, groups=groups))
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
    write(folder / name, content)


def places(node, path=()):
    """The path of every value in nested dicts and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def hostile(folder, evil):
    """Writes a run with the text `evil` in place of every text and name that may be any text."""
    named = dict(method=evil, solver=evil, steps=4, batch_size=8, args={evil: evil}, solver_args={})
    make(folder, phases={evil: named})
    for name in JSON_FILES:
        content = files.read_json(folder / name)
        for path in list(places(content)):
            node = content
            for key in path[:-1]:
                node = node[key]
            kept = {"part", "good", "good_on_forget", "spread_of", "variant", "side", "phases"}
            if isinstance(node[path[-1]], str) and not kept & set(path):
                node[path[-1]] = evil
        write(folder / name, content)
    results = files.read_json(folder / "results.json")
    figures = {evil: results["figures"]["fid"] | {"name": evil}}
    cells = {evil: 1.5}
    task = {v: dict.fromkeys(results["counts"], cells) for v in ("original", "unlearned")}
    extra = dict(
        figures=results["figures"] | figures, tasks={evil: task}, **task, skipped={evil: evil},
        ended={evil: f"not reached {evil}"}, evaluated=dict.fromkeys(task, evil),
        passes={evil: {evil: dict(images=1, split=evil, passes=2.0)}},
        tokenizer={evil: dict(psnr=1.0, codebook_usage=0.5, codebook_perplexity=3.0)},
        digests={"code": evil, "weights": {"original": evil, evil: evil}},
        intervals={evil: {v: {side: {evil: [1.0, 2.0]} for side in task[v]} for v in task}},
        unclean={"retrained": [evil], evil: [evil]}, task=evil,
        measured={evil: {"network": evil}}, networks={evil: results["networks"]["main"]},
        audits=planted.hostile(evil), cost={evil: {"seconds": 1.0}}, seconds={evil: 1.0},
        steps={evil: [4, 4]},
    )  # fmt: skip
    write(folder / "results.json", results | extra)
    config = files.read_json(folder / "config.json")
    config |= dict(evaluate=dict(tasks=[evil]), tasks={evil: dict(task=evil, args={evil: evil})})
    config["model"]["args"] = {"size": evil, "margin": evil}
    config["data"]["token_cache"] = {"views": 2}
    write(folder / "config.json", config)
    split = files.read_json(folder / "splits" / "forget.json")
    write(folder / "splits" / "a<b>&\"'.json", split | dict(skipped=[evil]))
    (folder / "metrics.jsonl").write_text(
        "".join(
            json.dumps(dict(phase=evil, step=i, retain=i, forget=4 - i)) + "\n" for i in range(4)
        )
    )
    return folder
