"""The original that a run unlearns: finding its file, reading it, checking that it fits.

A file is one of ours (.safetensors), an official PyTorch checkpoint, or bundled:NAME.
"""

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l2l_jax.find import find
from l2l_jax.lib import files, torchfile, trees, weightfile
from l2l_jax.lib.errors import DataMissing, WrongWeights, check_args
from l2l_jax.lib.names import to_ours
from l2l_jax.lib.weightfile import Weights

BUNDLED = Path(__file__).parent / "models" / "bundled"
OFFICIAL = {
    "mae_visualize_vit_base.pth": ("visualize", "whole, plain pixels: what completing needs"),
    "mae_visualize_vit_large.pth": ("visualize", "whole, plain pixels"),
    "mae_visualize_vit_large_ganloss.pth": ("visualize", "whole, plain pixels, adversarial loss"),
    "mae_visualize_vit_huge.pth": ("visualize", "whole, plain pixels"),
    "mae_pretrain_vit_base_full.pth": ("pretrain", "whole, normalised pixels: cannot complete"),
    "mae_pretrain_vit_large_full.pth": ("pretrain", "whole, normalised pixels: cannot complete"),
    "mae_pretrain_vit_huge_full.pth": ("pretrain", "whole, normalised pixels: cannot complete"),
}


def url(name: str) -> str:
    """Where an official file is published (CC-BY-NC 4.0, Meta)."""
    return f"https://dl.fbaipublicfiles.com/mae/{OFFICIAL[name][0]}/{name}"


def locate(spec: str) -> Path:
    """The file meant by config.weights. DataMissing says what to get and which command to run."""
    if spec.startswith("bundled:"):
        path = BUNDLED / f"{spec.removeprefix('bundled:')}.safetensors"
        known = sorted(p.stem for p in BUNDLED.glob("*.safetensors"))
        advice = f"Bundled are: {', '.join(known) or 'none'}."
    else:
        path = Path(spec).expanduser()
        official = f"{path.stem}.pth"
        advice = "Make it with 'python -m l2l_jax.weights import OFFICIAL.pth OUT.safetensors'."
        if official in OFFICIAL:
            convert = f"\n  python -m l2l_jax.weights import {official} {path}"
            advice = (
                f"Get the official file:\n  curl -L {url(official)} -o "
                f"{path if path.suffix == '.pth' else official + convert}\n"
                "Then run the same command."
            )
    if not path.is_file():
        raise DataMissing(f"There are no weights {path}. {advice}")
    return path


def load(spec: str, name: str, args: Mapping[str, Any]) -> Weights:
    """The original of a run, checked against the config's model; canonical layout, on the host.

    spec: a .safetensors file of ours, an official .pth or .ckpt file, or bundled:NAME. name, args:
    the model section of the config. WrongWeights names every difference.
    """
    path, module = locate(spec), find("model", name)
    if path.suffix == ".safetensors":
        weights = weightfile.load(path)
    else:
        told = {key: args[key] for key in (*module.UNTOLD, "image_size") if args.get(key)}
        weights = read_official(path, name, told)
    if weights.about["model"] != name:
        raise WrongWeights(f"{path} holds a {weights.about['model']}, the config names a {name}.")
    made = weights.about["args"]
    wanted, given = module.build(**args), module.build(**made)
    text = trees.difference(weights.params, wanted.canonical, path.name, "the config's model")
    differs = [
        f"  {key}: {value!r} there, {wanted.identity[key]!r} in the config"
        for key, value in given.identity.items()
        if value != wanted.identity[key]
    ]
    if text or differs:
        lines = [f"{path} does not fit the config's model.", *differs, *([text] if text else [])]
        raise WrongWeights("\n".join([*lines, f"It was made with model.args = {made}."]))
    return weights


def read_official(path: Path, name: str, told: Mapping[str, Any]) -> Weights:
    """An official checkpoint as ours. told: `build` arguments, for what the file does not tell.

    Another image_size than the file's interpolates its positions.
    """
    module = find("model", name)
    check_args(module.build, told, f"the model {name}")
    content = torchfile.read(path)
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict):
        raise WrongWeights(f"{path} holds a {type(state).__name__}, not a state dict.")
    stored = content.get("args")
    about = vars(stored) if isinstance(stored, types.SimpleNamespace) else {}
    native = module.recognise(state, about | {"file": path.name} | told)
    args = native | told
    params = to_ours(state, module.NAMES)
    model = module.build(**args)
    if args["image_size"] != native["image_size"]:
        params = module.resized(params, model.grid[0])
    if text := trees.difference(params, model.canonical, path.name, f"a whole {name}"):
        raise WrongWeights(f"{path} does not hold a whole {name} of {args}. {text}")
    source = {"file": path.name, "sha256": files.sha256(path)}
    return Weights(params, {"model": name, "args": args, "source": source})
