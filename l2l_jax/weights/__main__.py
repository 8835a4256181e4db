"""Weights on the command line: listing them, and turning files into other files.

    python -m l2l_jax.weights list
    python -m l2l_jax.weights import mae_visualize_vit_base.pth weights/vit_base.safetensors
    python -m l2l_jax.weights export runs/demo unlearned.pth          (or .safetensors)

import turns an official PyTorch checkpoint into one safetensors file, without PyTorch and without
executing anything in it; export writes a run's last checkpoint, or such a file, for the official
code or for a later run.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from l2l_jax.engine.outcome import final_weights
from l2l_jax.lib import cli, trees
from l2l_jax.lib.errors import ConfigError, DataMissing
from l2l_jax.registry import find, find_format, names
from l2l_jax.weights import feature_networks, safetensors, torch_writer
from l2l_jax.weights.name_map import to_state_dict
from l2l_jax.weights.pretrained import BUNDLED, OFFICIAL, read_official, url
from l2l_jax.weights.safetensors import Weights


def read(source: Path, partial: bool = False) -> Weights:
    """Weights from a file of ours, or from the last checkpoint of a workdir.

    ConfigError for a workdir whose phases are not all done, unless partial: what looks like an
    unlearned model must be one.
    """
    if source.is_dir():
        return final_weights(source, partial)
    if not source.is_file():
        raise DataMissing(f"There is no weights file and no workdir {source}.")
    return safetensors.load(source)


def import_(source: Path, target: Path, name: str, told: dict[str, Any]) -> None:
    """An official checkpoint as a file of ours."""
    if target.suffix != ".safetensors":
        raise ConfigError(f"{target} should end in .safetensors, the form of our weights.")
    if not source.is_file():
        known = f" It is published at {url(source.name)}." if source.name in OFFICIAL else ""
        raise DataMissing(f"There is no file {source}.{known}")
    weights = read_official(source, name, told)
    digest = safetensors.save(target, weights.params, weights.about)
    print(f"{target}: {trees.count(weights.params):,} parameters, digest {digest[:16]}")
    print(f"config.model = dict(name={name!r}, args={weights.about['args']!r})")


def export(source: Path, target: Path, half: bool = False, partial: bool = False) -> None:
    """A workdir or a file of ours as a file of ours or an official one."""
    if target.suffix not in (".safetensors", ".pth", ".ckpt"):
        raise ConfigError(f"{target} should end in .safetensors (ours) or .pth, .ckpt (official).")
    if half and target.suffix != ".safetensors":
        raise ConfigError("--half is for .safetensors; the official code expects float32.")
    weights = read(source, partial)
    if target.suffix == ".safetensors":
        params, about = weights.params, dict(weights.about)
        if half:  # what is told of parameters is told of those that the file will hold
            params = safetensors.rounded(params)
            told = find("model", about["model"]).build(**about["args"]).inferred_args(params)
            about["args"] = about["args"] | told
        safetensors.save(target, params, about, half)
    else:
        name = weights.about["model"]
        form, model = find_format(name), find("model", name).build(**weights.about["args"])
        if form.NAMES is None or form.to_torch is None:
            raise ConfigError(
                f"The model {name!r} has no official file format; export to a .safetensors file."
            )
        state = to_state_dict(weights.params, form.NAMES)
        torch_writer.write(target, form.to_torch(state, model))
    print(f"{target}: {target.stat().st_size:,} bytes")


def list_() -> None:
    print("Bundled:")
    for path in sorted(BUNDLED.glob("*.safetensors")):
        about = safetensors.load(path).about
        print(f"  bundled:{path.stem}  {about['model']} {json.dumps(about['args'])}")
    print("Official (mae: CC-BY-NC 4.0, Meta; others: see there); * is here or in weights/:")
    for name, (model, content, _) in OFFICIAL.items():
        ours = Path("weights") / f"{Path(name).stem}.safetensors"
        places = (Path(name), Path("weights") / name, ours)
        here = "*" if any(place.exists() for place in places) else " "
        print(f" {here} {name:<37} {model}: {content}\n     {url(name)}")
    folders = ", ".join(map(str, feature_networks.folders()))
    print(f"Networks that judge; * is in one of {folders}; launch/fetch_weights.py gets them:")
    for name, about in feature_networks.OFFICIAL.items():
        here = (
            "*" if any((folder / name).is_file() for folder in feature_networks.folders()) else " "
        )
        print(
            f" {here} {name:<37} {about.what} ({about.size}, {about.licence})\n     {about.address}"
        )


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("l2l_jax.weights", description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what is bundled, what is published, what is here")
    add = commands.add_parser("import", help="an official PyTorch checkpoint -> a file of ours")
    add.add_argument("source", type=Path)
    add.add_argument("target", type=Path)
    add.add_argument("--model", default="mae", choices=names("model"))
    told = "a build argument that the file does not tell, e.g. heads=3 or image_size=384"
    add.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=told)
    out = commands.add_parser("export", help="a workdir or a file of ours -> .pth or .safetensors")
    out.add_argument("source", type=Path)
    out.add_argument("target", type=Path)
    out.add_argument("--half", action="store_true", help="kernels in float16 (.safetensors only)")
    out.add_argument("--partial", action="store_true", help="also from a run that is not finished")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command line of this module's docstring."""
    args = _parser().parse_args(argv)
    if args.command == "list":
        list_()
    elif args.command == "import":
        import_(args.source, args.target, args.model, cli.assignments(args.set, "--set"))
    else:
        export(args.source, args.target, args.half, args.partial)


if __name__ == "__main__":
    cli.explained(main)
