"""Gets official weights: of models to unlearn, and of networks that judge.

    python launch/fetch_weights.py                       what there is: addresses, licences, where
    python launch/fetch_weights.py pt_inception-2015-12-05-6726825d.pth mae_visualize_vit_base.pth
    python launch/fetch_weights.py --judges              all networks that judge, 4.7 GB

Files go to --to, by default $L2L_WEIGHTS or weights/. What is there is checked and not fetched
again; what was cut off goes on where it stopped. A file whose SHA-256 is known is kept only if it
agrees; of others the SHA-256 is printed. Google Drive wants a browser: for files that lie there,
and on a machine without network, the command says what to put where by hand. By using a file you
accept its licence.
"""

import argparse
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO

from l2l_jax.lib import cli, files
from l2l_jax.lib.errors import DataMissing, Explained, WrongWeights, unknown
from l2l_jax.weights.published import FILES, NETWORK_FILES, PublishedFile

PIECE = 1 << 20
TIMEOUT = 30  # seconds without a byte


def fetch(name: str, published: PublishedFile, folder: Path) -> Path:
    """The file in `folder`. DataMissing if it cannot be had, WrongWeights if it is another one."""
    path = folder / name
    if not path.exists():
        if published.needs_browser:
            raise DataMissing(f"{name} needs a browser: {published.url}\n  Save it as {path}.")
        part = path.with_name(f"{name}.part")
        _download(name, published.url, part, path)
        _check(name, part, published)
        part.rename(path)
    print(f"{path}: SHA-256 {_check(name, path, published)}")
    return path


def _check(name: str, path: Path, published: PublishedFile) -> str:
    """The SHA-256 of a file; WrongWeights, and a file that was just fetched is gone, if not its."""
    found = files.sha256(path)
    if not found.startswith(published.sha256):
        if path.suffix == ".part":
            path.unlink()
        raise WrongWeights(
            f"{name}: the SHA-256 of {path} is {found}, that of the published file begins with "
            f"{published.sha256}. {'Try again.' if path.suffix == '.part' else 'Remove it first.'}"
        )
    return found


def _download(name: str, address: str, part: Path, path: Path) -> None:
    """Fetches what `part` lacks."""
    part.parent.mkdir(parents=True, exist_ok=True)
    there = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={there}-"} if there else {})
    total = None
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            there = 0 if answer.status == 200 else there  # it sends all, whatever it was asked
            if length := answer.headers.get("Content-Length"):
                total = there + int(length)
            with part.open("ab" if there else "wb") as file:
                _copy(name, answer, file, there, total)
    except (OSError, http.client.HTTPException) as error:
        complete = isinstance(error, urllib.error.HTTPError) and error.code == 416
        if not complete:  # 416: nothing is left to send
            raise DataMissing(
                f"{name} could not be fetched: {error!r}\n  Run this again, or get it elsewhere "
                f"from {address}\n  and put it here: {path.absolute()}"
            ) from error
    if total is not None and part.stat().st_size < total:
        missing = total - part.stat().st_size
        raise DataMissing(f"{name} was cut off, {missing:,} bytes are missing; run this again.")


def _copy(name: str, answer: BinaryIO, file: BinaryIO, done: int, total: int | None) -> None:
    """Piece by piece, a line of progress every second."""
    began, first, told = time.monotonic(), done, 0.0
    while piece := answer.read(PIECE):
        file.write(piece)
        done += len(piece)
        now = time.monotonic()
        if now - told > 1:
            told = now
            share = f" of {total / 1e6:,.0f} MB ({done / total:.0%})" if total else " MB"
            speed = (done - first) / 1e6 / max(now - began, 1e-3)
            print(f"{name}: {done / 1e6:,.0f}{share}, {speed:.1f} MB/s", flush=True)


def _list(folder: Path) -> None:
    for name, published in FILES.items():
        here = "*" if (folder / name).exists() else " "
        size = f"{published.size}, " if published.size else ""
        digest = f", SHA-256 {published.sha256[:8]}..." if published.sha256 else ""
        described = f"{published.model_or_network}: {published.description}"
        print(f" {here} {name}\n     {described}; {size}{published.licence}{digest}")
        print(f"     {published.url}")
    print(f"* is in {folder}")


def main(argv: list[str] | None = None) -> None:
    """The command line of this module's docstring."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("fetch_weights.py", description=__doc__, formatter_class=form)
    parser.add_argument("names", nargs="*", metavar="FILE")
    parser.add_argument("--judges", action="store_true", help="all networks that judge")
    parser.add_argument("--to", type=Path, default=Path(os.environ.get("L2L_WEIGHTS", "weights")))
    args = parser.parse_args(argv)
    wanted = [*args.names, *(NETWORK_FILES if args.judges else ())]
    if not wanted:
        _list(args.to)
        return
    failures = []
    for name in wanted:
        if name not in FILES:
            raise unknown("published file", name, FILES)
    for name in wanted:
        try:
            fetch(name, FILES[name], args.to)
        except Explained as error:
            failures.append(str(error))
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    cli.explained(main)
