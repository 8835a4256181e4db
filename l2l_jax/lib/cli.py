"""Command lines that explain themselves: logging, our errors without tracebacks, config files."""

import ast
import logging
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from l2l_jax.lib.errors import ConfigError, Explained, Preempted, did_you_mean

log = logging.getLogger(__name__)


class _Brief(logging.Filter):
    """Orbax logs one failed write a dozen times with tracebacks; our own error says it once."""

    def filter(self, record: logging.LogRecord) -> bool:
        told = record.getMessage() if record.name == "asyncio" else record.pathname
        return not ("orbax" in told and record.levelno < logging.CRITICAL)


def start_logging() -> None:
    """Time and message on stderr: our lines from INFO on, those of other libraries from WARNING."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(_Brief())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("l2l_jax").setLevel(logging.INFO)


def _unraisable(args: Any) -> None:
    """Tensorstore's threads report to a loop that ended with the first failed write: not said."""
    if str(args.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(args)


def explained(main: Callable[..., Any], *args: Any) -> None:
    """Calls main; one of our errors becomes one line on stderr and exit code 2."""
    start_logging()
    sys.unraisablehook = _unraisable
    try:
        main(*args)
    except Explained as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Preempted as error:
        log.warning("stopped on SIGTERM at %s; the same command continues", error.where)
        raise


def load_config(spec: str) -> Any:
    """What `FILE.py:FORM` returns; configs/common.py is found beside the file.

    ConfigError if there is no such file (naming those beside it) or no such form.
    """
    path, _, form = spec.partition(":")
    if not Path(path).is_file():
        known = configs_in(Path(path).parent)
        listed = ", ".join(known) or f"no configs in {Path(path).parent}"
        raise ConfigError(f"There is no config {path}.{did_you_mean(path, known)} Known: {listed}.")
    above = str(Path(path).absolute().parents[1])
    if above not in sys.path:
        sys.path.insert(0, above)
    try:
        return runpy.run_path(path)["get_config"](*([form] if form else []))
    except ValueError as error:  # how a config refuses a form
        raise ConfigError(str(error)) from error


def configs_in(folder: Path) -> list[str]:
    """The config files of a folder."""
    there = (path for path in folder.glob("*.py") if "def get_config" in path.read_text())
    return sorted(path.as_posix() for path in there)


def literal(text: str) -> Any:
    """A Python literal, or else the text itself."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def assignments(words: list[str], option: str) -> dict[str, Any]:
    """["heads=3"] -> {"heads": 3}. ConfigError for a word without '='."""
    for word in words:
        if "=" not in word:
            raise ConfigError(f"{option} takes KEY=VALUE, not {word!r}.")
    pairs = (word.split("=", 1) for word in words)
    return {key: literal(value) for key, value in pairs}
