"""Errors that contain their cure: what is wrong, what exists, what was meant, what to do."""

import copy
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class Explained(Exception):
    """An error of the user's world, not of the code: shown without a traceback."""


class ConfigError(Explained, ValueError):
    """A config that cannot be run; the message says what to change."""


class DataMissing(Explained, FileNotFoundError):
    """Data or weights that are not there; the message says where they come from."""


class BrokenImage(Explained, ValueError):
    """An image file that cannot be decoded; the message names the file and the reason."""


class WrongWeights(Explained, ValueError):
    """A weights file that does not fit; the message names the difference."""


class NonFinite(Explained, FloatingPointError):
    """A number that is not finite any more; the message says between which steps it happened."""


class Unrestorable(Explained, RuntimeError):
    """Checkpoints exist but none can be read."""


class NotSaved(Explained, OSError):
    """A checkpoint could not be written; the ones before it are untouched."""


class Preempted(SystemExit):
    """Raised on SIGTERM once nothing can be lost; the process ends with 143 = 128 + SIGTERM."""

    def __init__(self, where: str):
        super().__init__(143)
        self.where = where


FULL = ("No space left", "os_error_code='28'", "File too large", "Disk quota exceeded")


def is_full(error: Exception) -> bool:
    """Whether a failed write failed for want of room, by what orbax and the system say then."""
    return any(mark in str(error) for mark in FULL)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean 'max_loss'?' or nothing."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def unknown(kind: str, name: str, known: Iterable[str], advice: str = "") -> ConfigError:
    """The error for a name that is not among the known ones."""
    known = sorted(str(k) for k in known)
    listed = ", ".join(known) or "none"
    hint = did_you_mean(name, known)
    return ConfigError(f"No {kind} called {name!r}.{hint} Known: {listed}. {advice}".rstrip())


def accepts(function: Callable) -> tuple[str, ...]:
    """The keyword-only arguments of a function: the schema of its config."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def defaults(function: Callable) -> dict[str, Any]:
    """The keyword-only arguments that have a default, with it."""
    parameters = inspect.signature(function).parameters.values()
    keyword = (p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty)
    return {p.name: copy.deepcopy(p.default) for p in keyword}


def over(default: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The default with what is given in its place, also inside of an argument that is a dict."""
    both = {k: v for k, v in given.items() if isinstance(v, Mapping) and default.get(k)}
    return {**default, **given} | {k: over(default[k], v) for k, v in both.items()}


def check_args(function: Callable, given: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError for an argument that `function` does not take, or lacks."""
    takes = accepts(function)
    for key in given:
        if key not in takes:
            listed = ", ".join(takes) or "no arguments"
            raise ConfigError(
                f"{where} does not take {key!r}.{did_you_mean(key, takes)} It takes: {listed}."
            )
    for parameter in inspect.signature(function).parameters.values():
        needed = parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        if needed and parameter.name not in given:
            raise ConfigError(f"{where} needs a value for {parameter.name!r}.")
