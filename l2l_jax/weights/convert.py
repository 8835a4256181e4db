"""Converts weights files: an official PyTorch checkpoint to .safetensors, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l2l_jax.lib import trees
from l2l_jax.lib.errors import ConfigError, DataMissing
from l2l_jax.registry import find_format
from l2l_jax.weights import published, safetensors, torch_writer
from l2l_jax.weights.name_map import to_state_dict
from l2l_jax.weights.pretrained import read_official, stated_model
from l2l_jax.weights.safetensors import Weights

OWN_SUFFIX = ".safetensors"
OFFICIAL_SUFFIXES = (".pth", ".ckpt")


def _no_official_format(model: str) -> ConfigError:
    return ConfigError(
        f"The model {model!r} has no official file format; its weights are {OWN_SUFFIX} files."
    )


def import_file(source: Path, target: Path, model: str, args: Mapping[str, Any]) -> Weights:
    """Writes the weights of an official checkpoint to a .safetensors file and returns them.

    args: `build` arguments that the checkpoint does not determine. Raises ConfigError for another
    suffix and for a model without an official format, DataMissing if there is no such file, and
    WrongWeights if the file does not hold the whole model.
    """
    if target.suffix != OWN_SUFFIX:
        raise ConfigError(f"{target} should end in {OWN_SUFFIX}, the format of this project.")
    if find_format(model).NAMES is None:
        raise _no_official_format(model)
    if not source.is_file():
        official = published.MODEL_FILES.get(source.name)
        hint = f" It is published at {official.url}." if official else ""
        raise DataMissing(f"There is no file {source}.{hint}")
    weights = read_official(source, model, args)
    digest = safetensors.save(target, weights.params, weights.about)
    return Weights(weights.params, weights.about | {"digest": digest})


def export_file(weights: Weights, target: Path, half: bool = False) -> None:
    """Writes weights to a .safetensors file, or to an official .pth or .ckpt file.

    half: store kernels in float16 (.safetensors only). Raises ConfigError for another suffix and
    for a model without an official format.
    """
    check_target(target, half)
    if target.suffix == OWN_SUFFIX:
        params, metadata = weights.params, dict(weights.about)
        if half:  # inferred arguments must describe the rounded parameters
            params = safetensors.rounded(params)
            model = stated_model(weights, target)
            metadata["args"] = metadata["args"] | model.inferred_args(params)
        safetensors.save(target, params, metadata, half)
        return
    name = weights.about["model"]
    file_format = find_format(name)
    if file_format.NAMES is None or file_format.to_torch is None:
        raise _no_official_format(name)
    model = stated_model(weights, target)
    state = to_state_dict(weights.params, file_format.NAMES)
    torch_writer.write(target, file_format.to_torch(state, model))


def check_target(target: Path, half: bool = False) -> None:
    """ConfigError if no file with this suffix can be written, or not in half precision."""
    if target.suffix not in (OWN_SUFFIX, *OFFICIAL_SUFFIXES):
        official = ", ".join(OFFICIAL_SUFFIXES)
        raise ConfigError(f"{target} should end in {OWN_SUFFIX} (ours) or {official} (official).")
    if half and target.suffix != OWN_SUFFIX:
        raise ConfigError(f"--half is for {OWN_SUFFIX} files; the official code expects float32.")


def summary(weights: Weights) -> str:
    """Number of parameters and digest in words, and the model section of a config that fits."""
    model, args = weights.about["model"], weights.about["args"]
    return (
        f"{trees.count(weights.params):,} parameters, digest {weights.about['digest'][:16]}\n"
        f"config.model = dict(name={model!r}, args={args!r})"
    )
