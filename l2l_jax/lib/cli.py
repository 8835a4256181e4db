"""Command lines that explain themselves: logging, our errors without tracebacks, misspelt keys."""

import logging
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import app

from l2l_jax.lib.errors import Explained, did_you_mean
from l2l_jax.lib.preemption import Preempted

log = logging.getLogger(__name__)


class _Brief(logging.Filter):
    """Orbax logs one failed write a dozen times with tracebacks; our own error says it once."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not ("orbax" in record.pathname and record.levelno < logging.CRITICAL)


def start_logging() -> None:
    """Time and message on stderr: our lines from INFO on, those of other libraries from WARNING."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(_Brief())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("l2l_jax").setLevel(logging.INFO)


def explained(main: Callable[..., Any], *args: Any) -> None:
    """Calls main; one of our errors becomes one line on stderr and exit code 2."""
    start_logging()
    try:
        main(*args)
    except Explained as error:
        _stop(str(error))
    except Preempted as error:
        log.warning("stopped on SIGTERM at %s; the same command continues", error.where)
        raise


def run(main: Callable[[list[str]], None]) -> None:
    """absl's app.run with `explained`, and a readable error for a misspelt --config key."""
    app.run(lambda argv: explained(main, argv), flags_parser=parse)


def parse(argv: list[str]) -> list[str]:
    """Parses flags; makes the folder above a config's folder importable (configs/common.py)."""
    spec = _config_of(argv)
    if spec:
        path = Path(spec.partition(":")[0])
        if not path.is_file():
            there = (p for p in path.parent.glob("*.py") if "def get_config" in p.read_text())
            known = sorted(p.as_posix() for p in there)
            listed = ", ".join(known) or f"no configs in {path.parent}"
            _stop(
                f"There is no config {path}.{did_you_mean(path.as_posix(), known)} Known: {listed}."
            )
        try:
            load_config(spec)
        except ValueError as error:  # a form that the file does not have
            _stop(str(error))
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError):
        _explain_key(argv, spec)
        raise


def load_config(spec: str) -> Any:
    """What `FILE.py:FORM` returns; configs/common.py is found beside the file."""
    path, _, form = spec.partition(":")
    above = str(Path(path).absolute().parents[1])
    if above not in sys.path:
        sys.path.insert(0, above)
    return runpy.run_path(path)["get_config"](*([form] if form else []))


def _stop(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _config_of(argv: list[str]) -> str | None:
    for at, word in enumerate(argv):
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name == "config":
            return value if equals else (argv[at + 1] if at + 1 < len(argv) else None)
    return None


def _explain_key(argv: list[str], spec: str | None) -> None:
    """Exits with a suggestion if an override names a key that the config does not have."""
    if spec is None:
        return
    path, known = spec.partition(":")[0], sorted(_keys(load_config(spec), ""))
    for word in argv[1:]:
        key = word.lstrip("-").partition("=")[0].removeprefix("no")
        if key.startswith("config.") and key.removeprefix("config.") not in known:
            hint = did_you_mean(key.removeprefix("config."), known)
            _stop(f"--{key}: {path} has no such key.{hint}")


def _keys(config: Any, prefix: str) -> Iterator[str]:
    for key, value in config.items():
        yield f"{prefix}{key}"
        if hasattr(value, "items"):
            yield from _keys(value, f"{prefix}{key}.")
