"""Run folders as a finished run leaves them, made without running anything."""

import numpy as np
from PIL import Image

from l2l_jax.lib import files

HOSTILE = "<script>alert(1)</script>"


def cell(fid, psnr):
    return {"fid": fid, "is": 3.0, "is_std": 0.1, "cosine": 0.9, "psnr": psnr, "l1": 0.05}


def make(folder):
    """What a run leaves in its workdir, with a class of a hostile name; returns the folder."""
    unlearn = dict(method="l2l", solver="weighted", steps=4, batch_size=8)
    config = dict(phases=["unlearn"], unlearn=unlearn, data=dict(name="fashion_mnist"), seed=0,
                  model=dict(name="mae", args=dict(size="small")),
                  tasks=dict(center=dict(task="center", args=dict(cells=2))),
                  evaluate=dict(tasks=["center"]),
                  split=dict(forget=dict(files=""), retain=dict(files=""), seed=0))  # fmt: skip
    files.write_json(folder / "config.json", config)
    launch = dict(git="abc", code="e" * 64, packages={"jax": "0.10.2"}, devices="1 x cpu")
    files.write_json(folder / "versions.json", launch | dict(continued_with=[]))
    task = {
        "original": {"retain": cell(10.0, 20.0), "forget": cell(12.0, 19.0)},
        "unlearned": {"retain": cell(11.0, 19.8), "forget": cell(60.0, 9.0)},
    }
    classes = {"forget_eval": [HOSTILE, "Bag"], "retain_eval": ["Coat"]}
    results = {
        **task, "audits": {}, "steps": {"unlearn": [4, 4]}, "seconds": {"unlearn": 10.0},
        "trained_on": ["forget", "retain"],
        "task": "center", "tasks": {"center": task}, "classes": classes,
        "counts": {"retain": 60, "forget": 40},
        "features": {"name": "classifier", "digest": "f" * 64, "accuracy": 0.88},
        "digests": {"code": "c" * 64, "weights": {"original": "0" * 64, "unlearned": "1" * 64},
                    "splits": {}},
    }  # fmt: skip
    files.write_json(folder / "results.json", results)
    split = dict(part="train", count=3, digest="d" * 64, classes=["Bag"], skipped=[], keys=[])
    for name in ("forget", "forget_eval", "retain_eval"):
        part = "eval" if "eval" in name else "train"
        files.write_json(folder / "splits" / f"{name}.json", split | dict(part=part))
    lines = [
        f'{{"phase": "unlearn", "step": {i}, "retain": {i}, "forget": {4 - i}}}\n' for i in range(4)
    ]
    (folder / "metrics.jsonl").write_text("".join(lines))
    groups = [dict(variant=v, side=s, points=[[0, 1], [2, 3]])
              for v in ("original", "unlearned") for s in ("retain", "forget")]  # fmt: skip
    files.write_json(folder / "tsne.json", dict(task="center", perplexity=20, groups=groups))
    (folder / "images").mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "images" / "center_forget.png")
    return folder
