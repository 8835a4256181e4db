"""Lists of image keys: text files with one key a line, and the JSON files of splits."""

import codecs
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from l2l_jax.lib.errors import ConfigError, DataMissing, most_similar

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 30  # of a list: twenty million keys
MAX_COMPARED = 2_000  # keys among which a similar one is searched
ENCODINGS = {  # by the first bytes; editors on Windows write these
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read(path: Path) -> list[str]:
    """The keys of a list, each once, in order; spaces around a key and empty lines are ignored.

    The text is UTF-8, or what its byte order mark says. DataMissing if there is no such file,
    ConfigError if it is no list, or an empty one.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder. Name a text file in it that lists image keys.")
    if not path.exists():
        raise DataMissing(f"{path} does not exist. It should list image keys, one a line.")
    if not path.is_file():
        raise ConfigError(f"{path} is no regular file. Name a text file that lists image keys.")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ConfigError(
            f"{path} has {size:,} bytes; a list of image keys has at most {MAX_BYTES:,}. Name the "
            "right file, or choose the images by classes."
        )
    text = _text(path)
    if path.suffix.lower() == ".json":
        keys = _keys_of_json(path, text)
    else:
        lines = text.replace("\r", "\n").split("\n")
        keys = [key for line in lines if (key := line.strip())]
    if not keys:
        raise ConfigError(f"{path} lists no images. Write one key a line, such as cats/001.jpg.")
    counts = Counter(keys)
    if len(counts) < len(keys):
        double, times = counts.most_common(1)[0]
        log.warning("%s lists %s %d times; it counts once", path, double, times)
    return list(counts)


def _text(path: Path) -> str:
    """The content of a text file, with the byte order mark that it may have removed."""
    data = path.read_bytes()
    encoding = next((name for mark, name in ENCODINGS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path} is no {encoding.upper().removesuffix('-SIG')} text (line {line}). Save it as "
            "UTF-8; it should list image keys, one a line."
        ) from error
    if "\0" in text:
        raise ConfigError(
            f"{path} is no text: it has zeros. Save it as UTF-8; it should list image keys, one a "
            "line."
        )
    return text


def _keys_of_json(path: Path, text: str) -> list[str]:
    """The value of "keys" in the JSON file of a split, or the list that the file consists of."""
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no JSON: {error}. Name the file of a split.") from error
    keys = content.get("keys") if isinstance(content, dict) else content
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ConfigError(f'{path} has no "keys": [...] of texts, as the JSON file of a split has.')
    return keys


def unknown(path: Path, missing: Iterable[str], known: Sequence[str]) -> ConfigError:
    """The error for keys of a list that no image has; it suggests what may be meant.

    known: the keys of all images, those that are trained on first.
    """
    missing = sorted(missing)
    suggested = [(key, near) for key in missing[:5] if (near := nearest(key, known))]
    hint = f" Did you mean {suggested[0][1]!r} for {suggested[0][0]!r}?" if suggested else ""
    if any(key.startswith("/") for key in missing):
        hint += " A key is the path below the root of the data set, not from the root of the disk."
    return ConfigError(
        f"{path} lists {len(missing)} images that are not in the data set: "
        f"{', '.join(map(repr, missing[:5]))}.{hint} A key looks like {known[0]!r}. "
        "--config.split.missing=skip leaves them out, and says so in the answer."
    )


def nearest(key: str, known: Sequence[str]) -> str:
    """The key that is probably meant: the end of a path, another case, or a similar name; or ""."""
    plain = key.replace("\\", "/").removeprefix("./").strip("\"', \t")
    parts = plain.split("/")
    ends = {"/".join(parts[at:]) for at in range(len(parts))}
    found = ends.intersection(known)
    if found:
        return max(found, key=len)
    lower = {name.lower(): name for name in known}
    if plain.lower() in lower:
        return lower[plain.lower()]
    name, stem = parts[-1].lower(), parts[-1].rpartition(".")[0].lower()
    of_name = [each for each in known if each.rpartition("/")[2].lower() == name]
    of_stem = [each for each in known if each.rpartition("/")[2].lower().startswith(f"{stem}.")]
    near = of_name or (of_stem if stem else [])
    return most_similar(plain, (near or known)[:MAX_COMPARED]) or next(iter(near), "")
