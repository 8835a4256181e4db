"""Writes, signs and checks the record of a run, and removes copies of what it forgot.

    python -m l2l_jax.record verify runs/demo
    python -m l2l_jax.record verify runs/demo/record --key public.pem --weights w.safetensors
    python -m l2l_jax.record verify runs/demo --rerun
    python -m l2l_jax.record sign runs/demo --key private.pem
    python -m l2l_jax.record sign runs/demo --keyless
    python -m l2l_jax.record verify runs/demo --identity me@example.org \\
        --issuer https://accounts.google.com
    python -m l2l_jax.record write runs/demo
    python -m l2l_jax.record purge runs/demo --dry-run

A run that unlearns writes its record itself. `verify` needs the folder `record` alone, and no
network; it ends with 0 if all is well, and with 1 if something is not. With `--rerun` it also needs
the workdir and the data: it computes the figures again, and lists those whose images are gone.
`purge` removes the copies that this project made of the images to forget (caches, pictures, pages),
and says what it cannot reach; run it before the images themselves are deleted.

A key pair is made by

    openssl ecparam -name prime256v1 -genkey -noout -out private.pem
    openssl ec -in private.pem -pubout -out public.pem

Signing without a key (`--keyless`) is by Sigstore: you log in, and a public log keeps your identity
and the time. It needs a network, to sign and to verify.
"""

import argparse
import sys
from pathlib import Path

from l2l_jax.lib import cli
from l2l_jax.lib.errors import ConfigError
from l2l_jax.record import manifest, signing, verify, write
from l2l_jax.workdir.layout import Workdir


def main(argv: list[str] | None = None) -> None:
    """The command line of this module's docstring."""
    parser = argparse.ArgumentParser(
        prog=cli.program("l2l_jax.record"),
        description=cli.described(__doc__, "l2l_jax.record"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("verify", help="check a record")
    check.add_argument("folder", type=Path, help="a record, or the workdir around it")
    signer = check.add_mutually_exclusive_group()
    signer.add_argument("--key", type=Path, metavar="PEM", help="the public key of the signer")
    signer.add_argument("--identity", help="who signed without a key, such as an e-mail address")
    check.add_argument("--issuer", help="who vouches for --identity, such as an https address")
    check.add_argument("--weights", type=Path, metavar="FILE", help="should be the recorded ones")
    check.add_argument(
        "--rerun", action="store_true",
        help="compute the figures again, with the data and the workdir; minutes",
    )  # fmt: skip
    sign = commands.add_parser("sign", help="sign the record of a run")
    sign.add_argument("folder", type=Path, help="a record, or the workdir around it")
    way = sign.add_mutually_exclusive_group(required=True)
    way.add_argument("--key", type=Path, metavar="PEM", help="your private key")
    way.add_argument("--keyless", action="store_true", help="by Sigstore, with your identity")
    sign.add_argument("--identity-token", metavar="FILE", type=Path, help="for --keyless: a login")
    make = commands.add_parser("write", help="write the record of a run again, without a signature")
    make.add_argument("folder", type=Path, metavar="WORKDIR")
    clear = commands.add_parser("purge", help="remove copies of the images that a run forgot")
    clear.add_argument("folder", type=Path, metavar="WORKDIR")
    clear.add_argument("--dry-run", action="store_true", help="only list them")
    clear.add_argument(
        "--checkpoints", action="store_true",
        help="also of phases trained on all images; the run cannot be evaluated again then",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if args.command == "verify":
        if bool(args.identity) != bool(args.issuer):
            parser.error("--identity and --issuer go together")
        signer = signing.Identity(args.identity, args.issuer) if args.identity else args.key
        _verify(args.folder, signer, args.weights, args.rerun)
    elif args.command == "sign":
        if args.identity_token and not args.keyless:
            parser.error("--identity-token goes with --keyless, not with --key")
        is_record = (args.folder / manifest.NAME).is_file()
        token = args.identity_token.read_text().strip() if args.identity_token else None
        print(signing.sign(args.folder if is_record else _record(args.folder), args.key, token))
    elif args.command == "purge":
        _purge(args.folder, args.dry_run, args.checkpoints)
    else:
        written = write.write(args.folder)
        if written is None:
            raise ConfigError(f"{args.folder} unlearns nothing: there is nothing to record.")
        print(written)


def _record(workdir: Path) -> Path:
    folder = Workdir(workdir).record_folder
    if not (folder / manifest.NAME).is_file():
        raise ConfigError(
            f"{workdir} has no record yet; 'python -m l2l_jax.record write {workdir}' writes it."
        )
    return folder


def _purge(folder: Path, dry_run: bool, checkpoints: bool) -> None:
    from l2l_jax.engine.purge import purge  # imports JAX, which the other commands do without

    made = purge(folder, dry_run, checkpoints)
    for path in made.removed:
        print(f"{'found' if dry_run else 'removed'}: {path}")
    for line in made.beyond:
        print(f"not reached: {line}")
    print(f"{len(made.removed)} {'found, none removed' if dry_run else 'removed'}")


def _verify(
    folder: Path, signer: Path | signing.Identity | None, weights: Path | None, again: bool
) -> None:
    found = verify.verify(folder, signer, weights)
    if again and found.intact:
        found = _rerun(folder, found)
    for line in found.problems:
        print(f"WRONG: {line}")
    for line in found.checked:
        print(f"checked: {line}")
    unknown = "" if signer else ", signer unknown"
    print(f"intact{unknown}" if found.intact else "NOT intact")
    if not found.intact:
        sys.exit(1)


def _rerun(folder: Path, found: verify.Verified) -> verify.Verified:
    """The same with what a recomputation of the figures found."""
    from l2l_jax.engine.rerun import rerun  # imports JAX

    workdir = folder.parent if (folder / manifest.NAME).is_file() else folder
    made = rerun(workdir, verify.findings(Workdir(workdir).record_folder))
    for line in made.gone:
        print(f"not recomputed: {line}")
    checked = [*found.checked, f"{made.compared} figures are recomputed and agree"]
    return verify.Verified(made.differences, found.checked if made.differences else checked)


if __name__ == "__main__":
    cli.run_with_clear_errors(main)
