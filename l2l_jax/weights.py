"""Weights on the command line: listing them, and turning files into other files.

    python -m l2l_jax.weights list
    python -m l2l_jax.weights import mae_visualize_vit_base.pth weights/vit_base.safetensors
    python -m l2l_jax.weights export runs/demo unlearned.pth          (or .safetensors)

import turns an official PyTorch checkpoint into one safetensors file, without PyTorch and without
executing anything in it; export writes a run's last checkpoint, or such a file, for the official
code or for a later run.
"""

import argparse
import ast
import json
from pathlib import Path
from typing import Any

from l2l_jax.experiment import final_weights
from l2l_jax.find import find, names
from l2l_jax.lib import cli, torchfile, trees, weightfile
from l2l_jax.lib.errors import ConfigError, DataMissing
from l2l_jax.lib.names import to_theirs
from l2l_jax.lib.weightfile import Weights
from l2l_jax.originals import BUNDLED, OFFICIAL, read_official, url


def read(source: Path) -> Weights:
    """Weights from a file of ours, or from the last checkpoint of a workdir."""
    if source.is_dir():
        return final_weights(source)
    if not source.is_file():
        raise DataMissing(f"There is no weights file and no workdir {source}.")
    return weightfile.load(source)


def import_(source: Path, target: Path, name: str, changes: dict[str, Any]) -> None:
    if not source.is_file():
        known = f" It is published at {url(source.name)}." if source.name in OFFICIAL else ""
        raise DataMissing(f"There is no file {source}.{known}")
    weights = read_official(source, name, changes)
    digest = weightfile.save(target, weights.params, weights.about)
    print(f"{target}: {trees.count(weights.params):,} parameters, digest {digest[:16]}")
    print(f"config.model = dict(name={name!r}, args={weights.about['args']!r})")


def export(source: Path, target: Path, half: bool) -> None:
    weights = read(source)
    if target.suffix == ".safetensors":
        weightfile.save(target, weights.params, weights.about, half)
    elif target.suffix in (".pth", ".ckpt"):
        state = to_theirs(weights.params, find("model", weights.about["model"]).NAMES)
        target.parent.mkdir(parents=True, exist_ok=True)
        torchfile.write(target, {"model": state})
    else:
        raise ConfigError(f"{target} should end in .safetensors (ours) or .pth (official).")
    print(f"{target}: {target.stat().st_size:,} bytes")


def list_() -> None:
    print("Bundled:")
    for path in sorted(BUNDLED.glob("*.safetensors")):
        about = weightfile.load(path).about
        print(f"  bundled:{path.stem}  {about['model']} {json.dumps(about['args'])}")
    print("Official (CC-BY-NC 4.0, Meta); * is here or in weights/:")
    for name, (_, content) in OFFICIAL.items():
        ours = Path("weights") / f"{Path(name).stem}.safetensors"
        places = (Path(name), Path("weights") / name, ours)
        here = "*" if any(place.exists() for place in places) else " "
        print(f" {here} {name:<37} {content}\n     {url(name)}")


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
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command line of this module's docstring."""
    args = _parser().parse_args(argv)
    if args.command == "list":
        list_()
    elif args.command == "import":
        told = dict(item.split("=", 1) for item in args.set)
        import_(args.source, args.target, args.model, {k: _value(v) for k, v in told.items()})
    else:
        export(args.source, args.target, args.half)


def _value(text: str) -> Any:
    """A Python literal, or else the text itself."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


if __name__ == "__main__":
    cli.explained(main)
