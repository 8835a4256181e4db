"""Lists, imports, exports, pushes and pulls weights files.

    python -m l2l_jax.weights list
    python -m l2l_jax.weights import mae_visualize_vit_base.pth weights/vit_base.safetensors
    python -m l2l_jax.weights export runs/demo unlearned.pth          (or .safetensors)
    python -m l2l_jax.weights push runs/demo me/unlearned
    python -m l2l_jax.weights pull me/unlearned@COMMIT unlearned.safetensors

import converts an official PyTorch checkpoint to one .safetensors file, without PyTorch and without
executing anything in the checkpoint. export writes the last checkpoint of a run, or a .safetensors
file, to an official file or to a .safetensors file that another run can start from. push uploads
them to the Hugging Face Hub (extra [hub]) with a model card and the record of the run, into a
private repository; pull gets them at a fixed commit, and checks their digest.
"""

import argparse
import json
import os
from pathlib import Path

from l2l_jax.engine.outcome import final_weights
from l2l_jax.lib import cli
from l2l_jax.lib.errors import DataMissing
from l2l_jax.registry import names
from l2l_jax.weights import convert, feature_networks, hub, published, safetensors
from l2l_jax.weights.pretrained import BUNDLED
from l2l_jax.weights.published import PublishedFile
from l2l_jax.weights.safetensors import Weights


def read(source: Path, partial: bool = False) -> Weights:
    """Weights of a .safetensors file, or of the last checkpoint of a workdir.

    Raises ConfigError for a workdir with unfinished phases unless `partial`, so that the result of
    an interrupted run is not taken for the unlearned model; DataMissing if there is nothing.
    """
    if os.path.isdir(source):  # False, in contrast to Path.is_dir, for a path that is too long
        return final_weights(source, partial)
    if not os.path.isfile(source):
        raise DataMissing(f"There is no weights file and no workdir {source}.")
    return safetensors.load(source)


def _list() -> None:
    print("Bundled:")
    for path in sorted(BUNDLED.glob("*.safetensors")):
        metadata = safetensors.load(path).about
        print(f"  bundled:{path.stem}  {metadata['model']} {json.dumps(metadata['args'])}")
    print("Official files of models; * exists here or in weights/, maybe as .safetensors:")
    for name, file in published.MODEL_FILES.items():
        converted = Path("weights") / f"{Path(name).stem}.safetensors"
        _list_file(name, file, Path(name), Path("weights") / name, converted)
    folders = feature_networks.folders()
    listed = ", ".join(map(str, folders))
    print(
        f"Feature networks; * exists in one of {listed}; python -m l2l_jax.weights.fetch gets them:"
    )
    for name, file in published.NETWORK_FILES.items():
        _list_file(name, file, *(folder / name for folder in folders))


def _list_file(name: str, file: PublishedFile, *places: Path) -> None:
    mark = "*" if any(place.is_file() for place in places) else " "
    details = ", ".join(filter(None, (file.size, file.licence)))
    print(f" {mark} {name:<37} {file.model_or_network}: {file.description} ({details})")
    print(f"     {file.url}")


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog=cli.program("l2l_jax.weights"),
        description=cli.described(__doc__, "l2l_jax.weights"),
        formatter_class=raw,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="bundled and published weights, and which of them exist here")
    add = commands.add_parser("import", help="official PyTorch checkpoint -> .safetensors file")
    add.add_argument("source", type=Path)
    add.add_argument("target", type=Path)
    add.add_argument("--model", default="mae", choices=names("model"))
    setting = "a build argument that the file does not determine, e.g. heads=3 or image_size=384"
    add.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=setting)
    out = commands.add_parser("export", help="workdir or .safetensors -> .pth or .safetensors")
    out.add_argument("source", type=Path)
    out.add_argument("target", type=Path)
    out.add_argument("--half", action="store_true", help="kernels in float16 (.safetensors only)")
    out.add_argument("--partial", action="store_true", help="also from an unfinished run")
    up = commands.add_parser("push", help="workdir or .safetensors -> the Hugging Face Hub")
    up.add_argument("source", type=Path)
    up.add_argument("name", metavar="OWNER/NAME")
    up.add_argument("--public", action="store_true", help="make a repository that all can see")
    up.add_argument("--partial", action="store_true", help="also from an unfinished run")
    down = commands.add_parser("pull", help="the Hugging Face Hub -> .safetensors")
    down.add_argument("spec", metavar="OWNER/NAME@COMMIT")
    down.add_argument("target", type=Path)
    down.add_argument("--digest", default="", help="that the parameters must have, or its start")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Runs the command line that this module's docstring describes."""
    args = _parser().parse_args(argv)
    if args.command == "list":
        _list()
    elif args.command == "import":
        settings = cli.assignments(args.set, "--set")
        weights = convert.import_file(args.source, args.target, args.model, settings)
        print(f"{args.target}: {convert.summary(weights)}")
    elif args.command == "push":
        made = hub.push(read(args.source, args.partial), args.name, args.source, args.public)
        print(f"pushed: {made}")
    elif args.command == "pull":
        weights = hub.pull(args.spec, args.target, args.digest)
        print(f"{args.target}: {convert.summary(weights)}")
    else:
        convert.check_target(args.target, args.half)
        convert.export_file(read(args.source, args.partial), args.target, args.half)
        print(f"{args.target}: {args.target.stat().st_size:,} bytes")


if __name__ == "__main__":
    cli.run_with_clear_errors(main)
