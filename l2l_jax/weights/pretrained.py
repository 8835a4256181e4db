"""Finds, reads and checks the file of the original model, which a run unlearns.

The file is a .safetensors file of this project, an official PyTorch checkpoint, or bundled:NAME.
It holds the whole model, or a part that training starts from, such as the tokenizer of a MAGE.
"""

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.lib import files, trees
from l2l_jax.lib.errors import DataMissing, UserError, WrongWeights
from l2l_jax.lib.signatures import check_args, merge_args
from l2l_jax.registry import find, find_format
from l2l_jax.types import ImageToImage, Params
from l2l_jax.weights import published, safetensors, torch_reader
from l2l_jax.weights.name_map import EXTRA_KEY, to_params, unknown_arrays
from l2l_jax.weights.safetensors import Weights
from l2l_jax.weights.torch_pickle import PLAIN

BUNDLED = Path(__file__).parent / "bundled"


def locate(spec: str) -> Path:
    """The file that config.weights names. DataMissing says how to get it, with the commands."""
    if spec.startswith("bundled:"):
        path = BUNDLED / f"{spec.removeprefix('bundled:')}.safetensors"
        known = sorted(p.stem for p in BUNDLED.glob("*.safetensors"))
        advice = f"Bundled are: {', '.join(known) or 'none'}."
    else:
        path = Path(spec).expanduser()
        advice = _download_advice(path)
    if not path.is_file():
        raise DataMissing(f"There are no weights {path}. {advice}")
    return path


def _download_advice(path: Path) -> str:
    """How to get a file: where the official file of this name is published, and how to import."""
    official = next((name for name in published.MODEL_FILES if Path(name).stem == path.stem), "")
    if not official:
        return (
            "Make it with 'python -m l2l_jax.weights import OFFICIAL.pth OUT.safetensors', or from "
            "a run with 'python -m l2l_jax.weights export WORKDIR OUT.safetensors'."
        )
    file = published.MODEL_FILES[official]
    is_official = path.suffix == Path(official).suffix
    target = path if is_official else official
    get = f"  curl -L {file.url} -o {target}"
    if file.needs_browser:
        get = f"  {file.url} (in a browser), to {target}"
    option = "" if file.model_or_network == "mae" else f" --model {file.model_or_network}"
    convert = f"\n  python -m l2l_jax.weights import {official} {path}{option}"
    convert = "" if is_official else convert
    return f"Get the official file:\n{get}{convert}\nThen run the same command."


def load(spec: str, name: str, args: Mapping[str, Any]) -> Weights:
    """The original model's weights, checked against the config: canonical layout, on the host.

    spec: a .safetensors file, an official .pth or .ckpt file, or bundled:NAME. name, args: the
    model section of the config. WrongWeights lists every difference.
    """
    path = locate(spec)
    if path.suffix == ".safetensors":
        weights = safetensors.load(path)
    else:
        keys = (*find_format(name).AMBIGUOUS, "image_size")
        weights = read_official(path, name, {key: args[key] for key in keys if args.get(key)})
    model = find("model", name).build(**args)
    file_model = stated_model(weights, path)
    params, template, expected = _fit(weights, name, model, path)
    text = trees.difference(params, template, path.name, "the config's model")
    inferred = {} if text else model.inferred_args(params)
    wanted = expected.identity | {key: model.identity[key] for key in inferred}
    differences = differing(file_model.identity | inferred, wanted)
    if text or differences:
        lines = [f"{path} does not fit the config's model."]
        lines += [f"  {line}" for line in differences]
        lines += [text] if text else []
        raise WrongWeights(
            "\n".join([*lines, f"It was made with model.args = {weights.about['args']}."])
        )
    return Weights(params, weights.about)


def stated_model(weights: Weights, path: Path) -> ImageToImage:
    """The model that the metadata of a file describe. WrongWeights if they describe none."""
    name, args = weights.about["model"], weights.about.get("args")
    if not isinstance(args, dict):
        raise WrongWeights(f"{path} does not state the args of its model {name!r:.100}.")
    build = find("model", name).build
    check_args(build, args, f"the args of {name} in {path}")
    try:
        return build(**args)
    except Exception as error:  # any value can stand in a file, and a model may fail anywhere
        raise WrongWeights(
            f"{path} states args that make no {name}: {error}. It states {args!r:.300}."
        ) from error


def _fit(
    weights: Weights, name: str, model: ImageToImage, path: Path
) -> tuple[Params, Params, ImageToImage]:
    """(adapted parameters, their template, the model or part of it that they belong to).

    WrongWeights if the file holds neither this model nor a part that it accepts.
    """
    file_name, file_format = weights.about["model"], find_format(name)
    if file_name == name:
        return file_format.adapt(weights.params, model), model.canonical, model
    group = file_format.ACCEPTS_PART.get(file_name)
    if not group:
        raise WrongWeights(f"{path} holds a {file_name}, the config names a {name}.")
    part = getattr(model, group)  # the other parameter groups are initialised
    params = {group: find_format(file_name).adapt(weights.params, part)}
    return params, {group: model.canonical[group]}, part


def differing(file: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """One line per setting of `file` that differs in `config`; "" in `config` accepts any value."""
    return [
        f"{key}: {value!r} there, {config[key]!r} in the config"
        for key, value in file.items()
        if value != config[key] and config[key] != ""
    ]


def read_official(path: Path, name: str, args: Mapping[str, Any]) -> Weights:
    """Weights of an official checkpoint. args: `build` arguments that it does not determine.

    If args has another image_size than the file, position tables are interpolated. WrongWeights if
    the file does not hold the whole model, or the model has no official file format.
    """
    build, file_format = find("model", name).build, find_format(name)
    if file_format.NAMES is None or file_format.infer_args is None:
        raise WrongWeights(f"{path}: the model {name!r} has no official file format.")
    check_args(build, args, f"the model {name}")
    state, stored_args = _state_dict(path)
    try:
        inferred = file_format.infer_args(state, {**stored_args, "file": path.name, **args})
        all_args = merge_args(inferred, args)
        model = build(**all_args)
        state = file_format.from_torch(state)
        params = file_format.adapt(to_params(state, file_format.NAMES), model)
    except WrongWeights as error:
        raise WrongWeights(f"{path}: {error}") from error
    except UserError:
        raise
    except Exception as error:  # arrays of unexpected shapes can fail in any rule
        raise WrongWeights(
            f"{path} does not hold a {name}: its arrays have other shapes than those of official "
            f"files ({type(error).__name__}: {error})."
        ) from error
    if all_args["image_size"] != inferred["image_size"]:
        params = file_format.resize_positions(params, model.grid[0])
    unknown = unknown_arrays(state, file_format.NAMES)
    text = trees.difference(params, model.canonical, path.name, f"a whole {name}")
    if unknown or text:
        raise WrongWeights(f"{path} does not hold a whole {name} of {all_args}. {unknown} {text}")
    source = {"file": path.name, "sha256": files.sha256(path)}
    all_args = all_args | model.inferred_args(params)
    return Weights(params, {"model": name, "args": all_args, "source": source})


def check_arrays(path: Path, state: Mapping[Any, Any]) -> None:
    """WrongWeights unless a state dict consists of named arrays."""
    for key, value in state.items():
        if not (isinstance(key, str) and isinstance(value, np.ndarray)):
            raise WrongWeights(
                f"{path} holds no state dict: its entry {key!r:.60} is a {type(value).__name__}, "
                "not an array."
            )


def _state_dict(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(state dict, training arguments stored beside it) of a PyTorch checkpoint."""
    content = torch_reader.read(path)
    state = content
    for key in ("model", "state_dict"):
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise WrongWeights(f"{path} holds a {type(state).__name__}, not a state dict.")
    if isinstance(content.get(EXTRA_KEY), dict):
        state = state | content[EXTRA_KEY]
    check_arrays(path, state)
    stored = content.get("args")
    args = vars(stored) if isinstance(stored, types.SimpleNamespace) else {}
    return state, {key: value for key, value in args.items() if isinstance(value, PLAIN)}
