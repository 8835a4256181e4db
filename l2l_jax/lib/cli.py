"""What all command lines share: logging, errors without tracebacks, config files, literals."""

import ast
import logging
import multiprocessing
import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from l2l_jax.lib import aborts, config_files, peers, quiet, signals
from l2l_jax.lib.errors import ConfigError, Preempted, UserError, short
from l2l_jax.lib.text import printable

log = logging.getLogger(__name__)

SCRIPT = "l2l-jax"  # the console script


class _Printable(logging.Formatter):
    """Replaces control characters, which file names may hold and a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(signals.prefix + super().format(record))


def start_logging() -> None:
    """Logs to stderr with the time: this package from INFO on, other libraries from WARNING on."""
    import absl.logging  # noqa: F401 - its logger knows who called it, if it is made by absl itself

    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(quiet.HideOrbax())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("l2l_jax").setLevel(logging.INFO)


def end_at_once_on_interrupt() -> None:
    """Makes Ctrl-C end the process with one line, until something else handles it.

    For commands that have nothing to clean up: an exception would be lost in some imports.
    """

    def end(*_: Any) -> None:
        os.write(2, f"{NOTHING_CHANGED}\n".encode())
        os._exit(128 + signal.SIGINT)

    signal.signal(signal.SIGINT, end)


NOTHING_CHANGED = "stopped by Ctrl-C; nothing was changed."


def run_with_clear_errors(main: Callable[..., Any], *args: Any) -> None:
    """Starts logging and calls main(*args).

    An error for the user (lib/errors.py) becomes one line on stderr and its exit code (2 for most),
    and so does a file that cannot be read or written. Ctrl-C and SIGTERM end with one line and the
    exit codes 130 and 143. Several processes of one run end together; see lib/peers.py.
    """
    quiet.set_levels()
    start_logging()
    sys.unraisablehook = quiet.unraisable
    try:
        try:
            main(*args)
        except Exception as error:
            if peers.joined() and aborts.may_come_from_a_loss(error):
                time.sleep(peers.SURE_SECONDS)  # a lost process ends this one within this time
            raise
        if others := peers.joined():
            others.finish()
    except UserError as error:
        _end(error.exit_code, f"error: {printable(str(error))}")
    except Preempted as error:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while the process ends
        signals.tell(str(error))
        _leave(128 + error.number)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print(NOTHING_CHANGED, file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and signals.stdout_is_closed():
            os._exit(128 + signal.SIGPIPE)  # `l2l-jax run --help | head`: nobody reads the rest
        if error.filename is None:
            raise
        _end(
            2,
            f"error: {short(error.filename)}: {error.strerror}. Correct the path, or its "
            "permissions, and run the same command again.",
        )
    except Exception:
        if not (others := peers.joined()):
            raise
        traceback.print_exc()
        others.leave(1)


def _end(code: int, line: str) -> None:
    """Ends the process after an error, with a line on stderr."""
    if others := peers.joined():
        others.leave(code, line)
    print(line, file=sys.stderr)
    sys.exit(code)


def _leave(code: int) -> None:
    """Ends the process without Python's own clean-up, which can crash while XLA runs a program.

    Everything is saved and closed by then.
    """
    if others := peers.joined():
        others.leave(code)
    for child in multiprocessing.active_children():  # such as those that read images
        child.terminate()
    if "jax" in sys.modules:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def load_config(spec: str) -> Any:
    """The config that get_config(FORM) of a config file returns.

    spec: "FILE.py", or the name of a config of the package, such as "mae_imagenet"; a form follows
    after a colon, as in "mae_imagenet:large". The file may import `configs.common`. ConfigError if
    there is no such file (with what exists), no such form, or a mistake in the file (with its
    line).
    """
    file, _, form = spec.partition(":")
    path = config_files.locate(file)
    config_files.make_importable(path)
    get_config: Any = None
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
        if get_config is None:
            raise ConfigError(f"{path} is no config: it has no function get_config.")
        config = get_config(*([form] if form else []))
        if not hasattr(config, "items"):
            raise ConfigError(f"{path}: get_config returns {config!r}, which is no config.")
        return config
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and get_config:  # it refuses the form
            raise ConfigError(str(error)) from error
        raise ConfigError(
            f"{_place(str(path), error)}: {type(error).__name__}: {error}. Correct the config file."
        ) from error


def _place(path: str, error: Exception) -> str:
    """The config file and the line of an error in it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    return f"{path}, line {lines[-1]}" if lines else path


def program(module: str) -> str:
    """How a command line was called: "l2l-jax audit", or "python -m l2l_jax.audit"."""
    return sys.argv[0] if sys.argv[0].startswith(f"{SCRIPT} ") else f"python -m {module}"


def described(text: str | None, module: str) -> str:
    """A module's docstring for its --help: commands in it begin as the command was called."""
    return (text or "").replace(f"python -m {module}", program(module))


def literal(text: str) -> Any:
    """The value of a Python literal; the text itself if it is none."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def assignments(words: list[str], option: str) -> dict[str, Any]:
    """["heads=3"] -> {"heads": 3}. ConfigError, which names `option`, for a word without '='."""
    for word in words:
        if "=" not in word:
            raise ConfigError(f"{option} takes KEY=VALUE, not {word!r}.")
    pairs = (word.split("=", 1) for word in words)
    return {key: literal(value) for key, value in pairs}
