"""The original that a run unlearns: finding its file, reading it, checking that it fits.

A file is one of ours (.safetensors), an official PyTorch checkpoint, or bundled:NAME. It holds the
whole model, or a part that training starts from, such as the tokenizer of a MAGE.
"""

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l2l_jax.lib import files, trees
from l2l_jax.lib.errors import DataMissing, WrongWeights
from l2l_jax.lib.signatures import check_args, merged
from l2l_jax.registry import find, find_format
from l2l_jax.weights import safetensors, torch_reader
from l2l_jax.weights.name_map import EXTRA_KEY, to_params, unknown_arrays
from l2l_jax.weights.safetensors import Weights

BUNDLED = Path(__file__).parent / "bundled"
META = "https://dl.fbaipublicfiles.com/mae"  # CC-BY-NC 4.0
DRIVE = "https://drive.google.com/file/d/"  # of the authors of MAGE and of L2L; a browser is needed
PLAIN = "whole, plain pixels"
NORMALISED = "whole, normalised pixels: cannot complete"
OFFICIAL = {  # file: (model, what it holds, where it is published)
    "mae_visualize_vit_base.pth": ("mae", f"{PLAIN}: what completing needs", f"{META}/visualize/"),
    "mae_visualize_vit_large.pth": ("mae", PLAIN, f"{META}/visualize/"),
    "mae_visualize_vit_large_ganloss.pth": ("mae", f"{PLAIN}, GAN loss", f"{META}/visualize/"),
    "mae_visualize_vit_huge.pth": ("mae", PLAIN, f"{META}/visualize/"),
    "mae_pretrain_vit_base_full.pth": ("mae", NORMALISED, f"{META}/pretrain/"),
    "mae_pretrain_vit_large_full.pth": ("mae", NORMALISED, f"{META}/pretrain/"),
    "mae_pretrain_vit_huge_full.pth": ("mae", NORMALISED, f"{META}/pretrain/"),
    "mage-vitb-1600.pth": (
        "mage", "ViT-B and its tokenizer", f"{DRIVE}1Q6tbt3vF0bSrv5sPrjpFu8ksG3vTsVX2/view"
    ),
    "mage-vitl-1600.pth": (
        "mage", "ViT-L and its tokenizer", f"{DRIVE}15xBPa8EIa0IRUiRYtXiYOC9JZVyMIFrB/view"
    ),
    "vqgan_jax_strongaug.ckpt": (
        "vqgan", "the tokenizer alone", f"{DRIVE}13S_unB87n6KKuuMdyMnyExW0G1kplTbP/view"
    ),
    "16_Network.pth": (
        "diffusion", "Palette on Places2", f"{DRIVE}1lxkcyMc6-VUDvNnOg3krryLoGMpBChuM/view"
    ),
}  # fmt: skip


def url(name: str) -> str:
    """Where an official file is published."""
    address = OFFICIAL[name][2]
    return address + name if address.endswith("/") else address


def locate(spec: str) -> Path:
    """The file meant by config.weights. DataMissing says what to get and which command to run."""
    if spec.startswith("bundled:"):
        path = BUNDLED / f"{spec.removeprefix('bundled:')}.safetensors"
        known = sorted(p.stem for p in BUNDLED.glob("*.safetensors"))
        advice = f"Bundled are: {', '.join(known) or 'none'}."
    else:
        path = Path(spec).expanduser()
        official = next((name for name in OFFICIAL if Path(name).stem == path.stem), "")
        advice = "Make it with 'python -m l2l_jax.weights import OFFICIAL.pth OUT.safetensors'."
        if official:
            model = "" if OFFICIAL[official][0] == "mae" else f" --model {OFFICIAL[official][0]}"
            convert = f"\n  python -m l2l_jax.weights import {official} {path}{model}"
            ready = path.suffix == Path(official).suffix
            get = f"  curl -L {url(official)} -o {path if ready else official}"
            if url(official).startswith(DRIVE):
                get = f"  {url(official)} (in a browser), to {path if ready else official}"
            advice = f"Get the official file:\n{get}{'' if ready else convert}"
            advice += "\nThen run the same command."
    if not path.is_file():
        raise DataMissing(f"There are no weights {path}. {advice}")
    return path


def load(spec: str, name: str, args: Mapping[str, Any]) -> Weights:
    """The original of a run, checked against the config's model; canonical layout, on the host.

    spec: a .safetensors file of ours, an official .pth or .ckpt file, or bundled:NAME. name, args:
    the model section of the config. WrongWeights names every difference.
    """
    path, form = locate(spec), find_format(name)
    if path.suffix == ".safetensors":
        weights = safetensors.load(path)
    else:
        told = {key: args[key] for key in (*form.AMBIGUOUS, "image_size") if args.get(key)}
        weights = read_official(path, name, told)
    made = weights.about["args"]
    wanted = find("model", name).build(**args)
    given = find("model", weights.about["model"]).build(**made)
    group = form.ACCEPTS_PART.get(weights.about["model"])
    if weights.about["model"] == name:
        params, whole, expected = form.adapt(weights.params, wanted), wanted.canonical, wanted
    elif group:  # a part of the model: the rest is made afresh
        expected = getattr(wanted, group)
        part = find_format(weights.about["model"]).adapt(weights.params, expected)
        params = {group: part}
        whole = {group: wanted.canonical[group]}
    else:
        raise WrongWeights(f"{path} holds a {weights.about['model']}, the config names a {name}.")
    text = trees.difference(params, whole, path.name, "the config's model")
    told = {} if text else wanted.inferred_args(params)
    known = expected.identity | {key: wanted.identity[key] for key in told}
    differs = differing(given.identity | told, known)
    if text or differs:
        differs = [f"  {line}" for line in differs]
        lines = [f"{path} does not fit the config's model.", *differs, *([text] if text else [])]
        raise WrongWeights("\n".join([*lines, f"It was made with model.args = {made}."]))
    return Weights(params, weights.about)


def differing(given: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    """What weights belong to that the config's model is not, a line each; "" there is anything."""
    return [
        f"{key}: {value!r} there, {known[key]!r} in the config"
        for key, value in given.items()
        if value != known[key] and known[key] != ""
    ]


def read_official(path: Path, name: str, told: Mapping[str, Any]) -> Weights:
    """An official checkpoint as ours. told: `build` arguments, for what the file does not tell.

    Another image_size than the file's interpolates its positions.
    """
    build, form = find("model", name).build, find_format(name)
    if form.NAMES is None or form.infer_args is None:
        raise WrongWeights(f"{path}: the model {name!r} has no official file format.")
    check_args(build, told, f"the model {name}")
    content = torch_reader.read(path)
    state = content
    for key in ("model", "state_dict"):
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise WrongWeights(f"{path} holds a {type(state).__name__}, not a state dict.")
    if isinstance(content.get(EXTRA_KEY), dict):
        state = state | content[EXTRA_KEY]
    stored = content.get("args")
    about = vars(stored) if isinstance(stored, types.SimpleNamespace) else {}
    native = form.infer_args(state, about | {"file": path.name} | told)
    args = merged(native, told)
    model = build(**args)
    state = form.from_torch(state)
    params = form.adapt(to_params(state, form.NAMES), model)
    if args["image_size"] != native["image_size"]:
        params = form.resize_positions(params, model.grid[0])
    unknown = unknown_arrays(state, form.NAMES)
    text = trees.difference(params, model.canonical, path.name, f"a whole {name}")
    if unknown or text:
        raise WrongWeights(f"{path} does not hold a whole {name} of {args}. {unknown} {text}")
    source = {"file": path.name, "sha256": files.sha256(path)}
    return Weights(
        params, {"model": name, "args": args | model.inferred_args(params), "source": source}
    )
