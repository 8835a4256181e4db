"""Errors for the user. Their messages say what is wrong, what exists, and what to do."""

import difflib
import errno
import reprlib
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar


class UserError(Exception):
    """An error that the user can correct, not a bug: command lines show it without a traceback."""

    exit_code: ClassVar[int] = 2


class ConfigError(UserError, ValueError):
    """The config cannot be run; the message says what to change."""


class DataMissing(UserError, FileNotFoundError):
    """Data or weights are missing; the message says where to get them."""


class BrokenImage(UserError, ValueError):
    """An image file cannot be decoded; the message names the file and the reason."""


class WrongWeights(UserError, ValueError):
    """A weights file does not fit the model; the message names the difference."""


class NonFinite(UserError, FloatingPointError):
    """A metric became nan or infinite; the message says between which steps."""


class Unrestorable(UserError, RuntimeError):
    """Checkpoints exist, but none of them can be read."""


class CannotRun(Exception):
    """Raised by an audit that cannot run on these images or this model; the text says why."""


class NotSaved(UserError, OSError):
    """A checkpoint or file could not be written; earlier ones are unchanged."""


class Damaged(UserError, ValueError):
    """A file was cut, edited or cannot be read; the message names it and the way out."""


class PeerMissing(UserError, RuntimeError):
    """Another process of the run has not come; the same command may succeed later."""

    exit_code: ClassVar[int] = 75  # EX_TEMPFAIL of sysexits.h


class Preempted(SystemExit):
    """Raised after SIGTERM or SIGINT, once everything is saved; the exit code is 128 + the signal.

    saved: what is on disk, in words; "" for nothing.
    """

    NAMES: ClassVar[dict[int, str]] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}

    def __init__(self, number: int, saved: str = ""):
        super().__init__(128 + number)
        self.number, self.saved = number, saved

    def __str__(self) -> str:
        """One line: what is saved, and how to go on."""
        saved = self.saved or "no step had been taken, so nothing is lost"
        name = self.NAMES[self.number]
        return f"stopped by {name}: {saved}; run the same command again to continue."


FULL_DISK = ("No space left", "os_error_code='28'", "File too large", "Disk quota exceeded")


def is_full(error: Exception) -> bool:
    """Whether a write failed because the disk or the quota is full, judged by the message."""
    return any(text in str(error) for text in FULL_DISK)


def short(value: object) -> str:
    """A value as in Python source, cut in the middle if it is long."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_SHORT.maxtuple = _SHORT.maxlist = _SHORT.maxdict = 10


def most_similar(name: str, known: Iterable[str]) -> str:
    """The known name that is most similar to a name; "" if none is similar."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return close[0] if close else ""


ADVICE = {  # for the reasons why a path cannot be written
    errno.ENOSPC: "Free some space and run the same command again.",
    errno.EDQUOT: "Free some space and run the same command again.",
    errno.EFBIG: "Free some space and run the same command again.",
    errno.EROFS: "Make the folder writable, or choose another place.",
    errno.EACCES: "Make the folder writable, or choose another place.",
    errno.EPERM: "Make the folder writable, or choose another place.",
    errno.ENAMETOOLONG: "Choose a shorter path.",
    errno.EISDIR: "A folder has the name of this file: move it away.",
    errno.EEXIST: "A file has the name of a folder that is needed: move it away.",
    errno.ENOTDIR: "A file has the name of a folder that is needed: move it away.",
    errno.ENOTEMPTY: "A folder has the name of this file: move it away.",
}


def reason(error: BaseException) -> str:
    """Why a file could not be read or written, in a few words, without its path."""
    if isinstance(error, NotSaved) and error.__cause__:
        return reason(error.__cause__)
    return getattr(error, "strerror", None) or str(error)


def not_saved(path: Path, error: OSError) -> NotSaved:
    """The error for a file or folder that could not be written: path, reason, and what to do."""
    advice = ADVICE.get(error.errno or 0, "Mend that and run the same command again.")
    return NotSaved(f"{path} could not be written: {reason(error)}. {advice}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint with the most similar known name, " Did you mean 'max_loss'?", or ""."""
    close = most_similar(name, known)
    return f" Did you mean {close!r}?" if close else ""


def unknown_name(kind: str, name: str, known: Iterable[str], advice: str = "") -> ConfigError:
    """The error for a name that is not in `known`; it lists them all. advice: what else to do."""
    known = sorted(str(k) for k in known)
    listed = ", ".join(known) or "none"
    hint = did_you_mean(name, known)
    return ConfigError(f"No {kind} called {name!r}.{hint} Known: {listed}. {advice}".rstrip())
