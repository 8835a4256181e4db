"""Trains the classifier of a config and bundles it, so that runs on its images need not do it.

    python launch/ship_classifier.py                     that of configs/fashion_mnist.py

It replaces l2l_jax/weights/bundled/classifier-KEY.npz. The key stands for the training images, the
settings, and the file of the classifier: do it again when one of them changes, and write the new
name and digest into the NOTICE and the README.md of that folder. Figures that are measured with the
classifier, such as FID, can then change.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from l2l_jax.engine.complete import complete_config  # noqa: E402
from l2l_jax.engine.experiment import Experiment  # noqa: E402
from l2l_jax.engine.plan import resolve  # noqa: E402
from l2l_jax.engine.preflight import preflight  # noqa: E402
from l2l_jax.feature_networks import classifier  # noqa: E402
from l2l_jax.lib import cli, preemption, sealed, trees  # noqa: E402
from l2l_jax.types import Params  # noqa: E402
from l2l_jax.weights import feature_networks  # noqa: E402
from l2l_jax.weights.pretrained import BUNDLED  # noqa: E402

Made = tuple[Params, dict[str, Any]]  # (parameters, metadata)


def key_and_classifier(
    experiment: Experiment, cached: Callable[[str, Callable[[], Made]], Made]
) -> tuple[str, dict[str, Any]]:
    """(the key of an experiment's classifier, what is known of it).

    cached(key, make) returns its (parameters, metadata), as feature_networks.cached does.
    """
    keys = []

    def noted(key: str, make: Callable[[], Made]) -> Made:
        keys.append(key)
        return cached(key, make)

    context = feature_networks.context(
        experiment.sources, experiment.splits, experiment.model.image_size, noted
    )
    args = experiment.plan.networks["main"].args
    about = classifier.build(context, **args).about
    return keys[0], about


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--config", default="fashion_mnist")
    plan = resolve(complete_config(cli.load_config(parser.parse_args(argv).config)))
    made: list[Made] = []

    def train(key: str, make: Callable[[], Made]) -> Made:
        del key
        params, about = make()
        made.append((params, about | {"digest": trees.digest(params)}))
        return made[0]

    with tempfile.TemporaryDirectory() as folder:
        experiment = preflight(plan, Path(folder) / "run", preemption.StopSignal())
        key, about = key_and_classifier(experiment, train)
    for old in BUNDLED.glob("classifier-*.npz"):
        old.unlink()
    path = BUNDLED / f"{key}.npz"
    sealed.write(path, key, feature_networks.content(*made[0]))
    print(f"{path}: {path.stat().st_size:,} bytes")
    print(f"digest {about['digest']}, held-out accuracy {about['accuracy']:.1%}")


if __name__ == "__main__":
    cli.run_with_clear_errors(main)
