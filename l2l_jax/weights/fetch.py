"""Downloads official weights: of models to unlearn, and of feature networks.

    python -m l2l_jax.weights.fetch            lists all files: addresses, licences, where
    python -m l2l_jax.weights.fetch pt_inception-2015-12-05-6726825d.pth mae_visualize_vit_base.pth
    python -m l2l_jax.weights.fetch --feature-networks    all feature networks, 4.7 GB

Files go to --to, by default $L2L_WEIGHTS or weights/. A file that is already there is checked and
not downloaded again; a partial download continues where it stopped, unless the file on the server
has changed since. If the SHA-256 of the published file is known, a file with another one is
refused; otherwise the file must at least look like a PyTorch file, and its SHA-256 is printed.
Google Drive needs a browser: for files that lie there, and on a machine without network, the
command says which file to put where by hand. By using a file you accept its licence.
"""

import argparse
import contextlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO

from l2l_jax.lib import cli, files
from l2l_jax.lib.errors import DataMissing, UserError, WrongWeights, unknown_name
from l2l_jax.weights.published import FILES, NETWORK_FILES, PublishedFile

CHUNK_BYTES = 1 << 20
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # before torch 1.6
TIMEOUT = 30  # seconds without a byte until a download fails


def fetch(name: str, published: PublishedFile, folder: Path) -> Path:
    """Downloads a file into `folder` if it is not there, checks it, and returns its path.

    DataMissing if it cannot be downloaded, WrongWeights if its SHA-256 is another one.
    """
    path = folder / name
    if not path.exists():
        if published.needs_browser:
            raise DataMissing(f"{name} needs a browser: {published.url}\n  Save it as {path}.")
        part = path.with_name(f"{name}.part")
        _download(name, published, part, path)
        _check(name, part, published)
        part.rename(path)
        _record_of(part).unlink(missing_ok=True)
    print(f"{path}: SHA-256 {_check(name, path, published)}")
    return path


def _check(name: str, path: Path, published: PublishedFile) -> str:
    """The SHA-256 of a file. WrongWeights if it is not the published one; deletes a .part file.

    If no SHA-256 is known, the file must begin like a PyTorch file.
    """
    if not published.sha256 and not _begins_like_weights(path):
        advice = f"Remove {path} and get the file again"
        if path.suffix == ".part":
            _discard(path)
            advice = (
                "Nothing of it is kept. Open the address in a browser and save the file by hand"
            )
        raise WrongWeights(
            f"{name}: what {published.url} gave is no weights file, perhaps a web page that asks "
            f"for a login. {advice}."
        )
    found = files.sha256(path)
    if not found.startswith(published.sha256):
        if path.suffix == ".part":
            _discard(path)
        raise WrongWeights(
            f"{name}: the SHA-256 of {path} is {found}, that of the published file begins with "
            f"{published.sha256}. {'Try again.' if path.suffix == '.part' else 'Remove it first.'}"
        )
    return found


def _begins_like_weights(path: Path) -> bool:
    """Whether a file begins like those of torch.save: a zip archive, or a pickle of its number."""
    with path.open("rb") as file:
        return file.read(len(LEGACY)).startswith((b"PK\x03\x04", LEGACY))


def _record_of(part: Path) -> Path:
    """The JSON file beside a partial download: {"version", "size"} of the file on the server."""
    return part.with_name(f"{part.name}.json")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _record_of(part).unlink(missing_ok=True)


def _resumable(part: Path, published: PublishedFile) -> tuple[int, dict[str, Any]]:
    """(bytes of a partial download that may be kept, what is known of the file on the server).

    Without a record and without a SHA-256 nobody would notice that the file has changed.
    """
    record: dict[str, Any] = {}
    with contextlib.suppress(OSError, UserError):
        record = files.read_json(_record_of(part))
    usable = isinstance(record, dict) and (record.get("version") or record.get("size"))
    if not part.exists() or not (usable or published.sha256):
        return 0, {}
    return part.stat().st_size, record if usable else {}


def _version(answer: http.client.HTTPResponse) -> str:
    """What identifies the content on the server: a strong ETag, else a date, else ""."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


def _download(name: str, published: PublishedFile, part: Path, path: Path) -> None:
    """Downloads to `part`, continuing it if it exists; `path` is its final name, for errors.

    WrongWeights if the server answers with a web page.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    done, record = _resumable(part, published)
    headers = {"Range": f"bytes={done}-"} if done else {}
    if done and record.get("version"):
        headers["If-Range"] = record["version"]  # another version: the server sends all of it
    request, total = urllib.request.Request(published.url, headers=headers), None
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
                _discard(part)
                raise WrongWeights(
                    f"{name}: {published.url} answers with a web page, not with the file. Nothing "
                    f"of it is kept. Open the address in a browser and save the file as {path}."
                )
            done = 0 if answer.status == 200 else done  # no ranges, or another version: all of it
            if length := answer.headers.get("Content-Length"):
                total = done + int(length)
            if done and record.get("size") not in (None, total):
                _discard(part)
                raise DataMissing(f"{name} has changed on the server; run this again.")
            files.write_json(_record_of(part), {"version": _version(answer), "size": total})
            with part.open("ab" if done else "wb") as file:
                _copy(name, answer, file, done, total)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, UserError):
            raise
        complete = isinstance(error, urllib.error.HTTPError) and error.code == 416
        if not complete:  # 416: the partial file is already complete
            raise DataMissing(
                f"{name} could not be fetched: {error!r}\n  Run this again, or download it "
                f"elsewhere from {published.url}\n  and put it here: {path.absolute()}"
            ) from error
        if not published.sha256 and record.get("size") != done:
            _discard(part)
            raise DataMissing(f"{name} has changed on the server; run this again.") from error
    if total is not None and part.stat().st_size < total:
        missing = total - part.stat().st_size
        raise DataMissing(f"{name} was cut off, {missing:,} bytes are missing; run this again.")


def _copy(name: str, answer: BinaryIO, file: BinaryIO, done: int, total: int | None) -> None:
    """Copies in chunks and prints progress every second. done, total: bytes, for the progress."""
    started, first, printed = time.monotonic(), done, 0.0
    while chunk := answer.read(CHUNK_BYTES):
        file.write(chunk)
        done += len(chunk)
        now = time.monotonic()
        if now - printed > 1:
            printed = now
            share = f" of {total / 1e6:,.0f} MB ({done / total:.0%})" if total else " MB"
            speed = (done - first) / 1e6 / max(now - started, 1e-3)
            print(f"{name}: {done / 1e6:,.0f}{share}, {speed:.1f} MB/s", flush=True)


def _list(folder: Path) -> None:
    """Prints every published file; * marks those in `folder`."""
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
    parser = argparse.ArgumentParser(
        prog=cli.program("l2l_jax.weights.fetch"),
        description=cli.described(__doc__, "l2l_jax.weights.fetch"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="FILE")
    parser.add_argument("--feature-networks", action="store_true", help="all feature networks")
    parser.add_argument("--to", type=Path, default=Path(os.environ.get("L2L_WEIGHTS", "weights")))
    args = parser.parse_args(argv)
    wanted = [*args.names, *(NETWORK_FILES if args.feature_networks else ())]
    if not wanted:
        _list(args.to)
        return
    failures = []
    for name in wanted:
        if name not in FILES:
            raise unknown_name("published file", name, FILES)
    for name in wanted:
        try:
            fetch(name, FILES[name], args.to)
        except UserError as error:
            failures.append(str(error))
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    cli.run_with_clear_errors(main)
