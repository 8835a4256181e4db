"""Errors that contain their cure: what is wrong, what exists, what was meant, what to do."""

import difflib
from collections.abc import Iterable


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
