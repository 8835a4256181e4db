"""The Python API: run an experiment, load a model, complete images. For notebooks and scripts.

    >>> import numpy as np
    >>> import l2l_jax
    >>> model = l2l_jax.load("bundled:mae_fashion_mnist")
    >>> model.name, model.image_size, model.grid
    ('mae', 32, (8, 8))
    >>> images = np.zeros((2, 32, 32, 3), np.uint8)
    >>> model.complete(images, "center").shape
    (2, 32, 32, 3)
    >>> model.loss(images, "random").dtype
    dtype('float32')

Images are uint8 NumPy arrays here, as files hold them. In a mask, True means hidden, as everywhere.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from l2l_jax.engine import retrained
from l2l_jax.engine.experiment import Experiment
from l2l_jax.engine.outcome import describe_parameters, read_run
from l2l_jax.engine.run import run as run_experiment
from l2l_jax.lib import cli, trees
from l2l_jax.lib.errors import ConfigError, WrongWeights
from l2l_jax.lib.signatures import check_args, keyword_defaults, merge_args
from l2l_jax.loaded import Model, Models
from l2l_jax.registry import find, find_format
from l2l_jax.types import Params
from l2l_jax.weights import pretrained, safetensors
from l2l_jax.weights.published import MODEL_FILES
from l2l_jax.weights.safetensors import Weights
from l2l_jax.workdir import claim


def run(config: ConfigDict | Mapping[str, Any] | str, workdir: str | Path) -> dict[str, Any]:
    """Runs or continues an experiment and returns the content of its results.json.

    config: what the get_config of a config file returns, the same as plain dicts, or the file and
    its form in one string, such as "configs/fashion_mnist.py:mage" or, of the configs that come
    with the package, "fashion_mnist:mage". The errors of lib/errors.py say what to change. A
    finished workdir is not run again.
    """
    settings: Any = cli.load_config(config) if isinstance(config, str) else config
    return run_experiment(settings, workdir)


def load_config(spec: str) -> Any:
    """The config of a file and its form, to be changed and given to `run`.

    spec: such as "configs/fashion_mnist.py:mage". docs/config.md lists the keys. ConfigError if
    there is no such file or form.

        config = l2l_jax.load_config("configs/fashion_mnist.py:short")
        config.unlearn.steps = 50
    """
    return cli.load_config(spec)


def load(
    source: str | Path, *, model: str = "", partial: bool = False, **args: Any
) -> Model | Models:
    """Loads one model from a file, or the models of a run from its workdir.

    source: a workdir, a .safetensors file of ours, an official PyTorch file, or "bundled:NAME".
    model: the file of models/ that a weights file belongs to; only needed for an official file that
    was renamed. partial: accept a workdir whose phases are not all done. args replace arguments of
    the model's `build`, such as sample_steps=5 or dtype="float32"; those that the parameters depend
    on cannot change.

    Returns a `Model` for a file. For a workdir it returns `Models`: "original", "unlearned", and of
    its references "retrained", "retrained_2", ...; if no phase of the run unlearns (it pretrains or
    retrains), there is one model only, and it returns that `Model`.
    Raises DataMissing if there is no such file, ConfigError if there is no such run or it is not
    finished, and WrongWeights if the file is damaged or does not fit.

        >>> load("bundled:mage_fashion_mnist", steps=2, temperature=0.5).args["steps"]
        2
    """
    bundled = str(source).startswith("bundled:")
    path = Path(source).expanduser()
    if os.path.isdir(path) or not (bundled or path.suffix):  # False for a path that is too long
        return _load_run(path, model, partial, args)
    path = pretrained.locate(str(source))
    if path.suffix == ".safetensors":
        return _model(safetensors.load(path), source, args, model)
    official = MODEL_FILES.get(path.name)
    name = model or (official.model_or_network if official else "")
    if not name:
        raise ConfigError(f"Which model is {path.name}? Give its name, such as model='mae'.")
    return _model(pretrained.read_official(path, name, args), source, {}, model)


def _load_run(folder: Path, model: str, partial: bool, args: Mapping[str, Any]) -> Model | Models:
    experiment, outcome = read_run(folder, partial)
    plan, done = experiment.plan, outcome.done
    making = {phase: n for phase, n in done.items() if plan.phases[phase].method.MAKES_ORIGINAL}

    def variant(params: Params, done: Mapping[str, tuple[int, int]]) -> Model:
        weights = _weights(experiment, params, describe_parameters(plan, done))
        return _model(weights, folder, args, model)

    final = variant(outcome.final, done)
    if making == done:
        return final
    models = {"original": variant(outcome.original, making), "unlearned": final}
    if plan.references:
        references = retrained.load_all(plan.references, experiment.model)
        claim.check_reference(folder, retrained.combined_digest(references))
        variants = retrained.names(len(references))
        for name, weights, source in zip(variants, references, plan.references, strict=True):
            models[name] = _model(weights, source, args, model)
    return Models(folder, dict(plan.config), models)


def _weights(experiment: Experiment, params: Params, description: str) -> Weights:
    """Parameters on the mesh as a file of ours would hold them."""
    planned, canonical = experiment.plan.model, experiment.canonical(params)
    args = dict(planned.args) | experiment.model.inferred_args(canonical)
    about = {"model": planned.plugin.name, "args": args, "source": {"result": description}}
    return Weights(canonical, about)


def _model(weights: Weights, source: str | Path, args: Mapping[str, Any], model: str) -> Model:
    """The model that the weights belong to, with some arguments replaced. See `load`."""
    name, stated = weights.about["model"], pretrained.stated_model(weights, Path(source))
    if model not in ("", name):
        raise WrongWeights(f"{source} holds a {name}, not a {model}.")
    plugin = find("model", name)
    build = plugin.build
    check_args(build, args, f"the model {name}", plugin.BOUNDS)
    complete_args = merge_args(merge_args(keyword_defaults(build), weights.about["args"]), args)
    functions = build(**complete_args)
    params = find_format(name).adapt(weights.params, functions)
    lines = pretrained.differing(stated.identity, functions.identity)
    if text := trees.difference(params, functions.canonical, str(source), "this model"):
        lines.append(text)
    if lines:
        raise WrongWeights("\n".join([f"{source} does not fit {dict(args)}.", *lines]))
    result = weights.about.get("source", {}).get("result")
    description = f"{result}, of {source}" if result else f"as loaded from {source}"
    return Model(name, complete_args, params, description, functions)
