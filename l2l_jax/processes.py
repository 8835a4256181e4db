"""The flags of commands that may be one of several processes, and how such a command begins.

--distributed=auto            found out: TPU pod, Slurm, Open MPI, Kubernetes
--distributed=HOST:PORT,COUNT,RANK      process RANK of COUNT; process 0 listens at HOST:PORT
--join-timeout=SECONDS        how long to wait for the other processes
--require=tpu|gpu|cpu         stop unless JAX computes on this kind of device
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

from l2l_jax.lib import aborts, cli, peers, signals
from l2l_jax.lib.errors import ConfigError, PeerMissing, short

log = logging.getLogger(__name__)

OPTIONS = (  # (name, default, name of the value, meaning)
    ("distributed", "", "SPEC", "one of several processes: auto, or HOST:PORT,COUNT,RANK"),
    ("join_timeout", 300.0, "SECONDS", "how long to wait for the other processes"),
    ("require", "", "KIND", "tpu, gpu or cpu: stop unless JAX computes on such devices"),
)
KINDS = ("tpu", "gpu", "cpu")
PLUGINS = {"libtpu": "tpu", "jax-cuda13-plugin": "gpu", "jax-cuda12-plugin": "gpu",
           "jax-rocm7-plugin": "gpu", "jax-rocm60-plugin": "gpu"}  # fmt: skip
SAY_EVERY_SECONDS = 10.0
HEARTBEAT_SECONDS = 60  # of JAX, which notices after half of that; lib/peers.py must be sooner
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


@dataclasses.dataclass(frozen=True)
class Address:
    """Which process this is. coordinator: HOST:PORT of process 0."""

    coordinator: str
    count: int
    rank: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this file to a command line."""
    for name, default, value, meaning in OPTIONS:
        kind: Any = type(default)
        word = f"--{flag(name)}"
        parser.add_argument(word, default=default, type=kind, metavar=value, help=meaning)


def flag(name: str) -> str:
    """An option as it is written on the command line."""
    return name.replace("_", "-")


def begin(distributed: str, join_timeout: float, require: str) -> None:
    """Joins the other processes, if there are any, and checks the devices.

    ConfigError for values that are not of the form that this file's docstring gives, and for other
    devices than those required; PeerMissing if not all processes come in time.
    """
    address = parse(distributed)
    if not 1 <= join_timeout <= 86400:
        raise ConfigError(f"--join-timeout={join_timeout:g} is not between 1 and 86,400 seconds.")
    if require not in ("", *KINDS):
        raise ConfigError(f"--require is one of {', '.join(KINDS)}, not {short(require)}.")
    _check_slurm(distributed)
    if distributed:
        _join(address, join_timeout)
    import jax

    devices = jax.devices()
    _check_kind(jax.default_backend(), require)
    log.info(
        "process %d of %d, %d device%s of kind %s",
        *(jax.process_index(), jax.process_count()),
        *(len(devices), "s" * (len(devices) > 1), devices[0].device_kind),
    )


def parse(spec: str) -> Address | None:
    """The value of --distributed; None for "" and "auto". ConfigError if it has another form."""
    if spec in ("", "auto"):
        return None
    form = "--distributed is 'auto' or HOST:PORT,COUNT,RANK, such as node1:12345,2,0"
    match = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s:,/]+):(\d+),(\d+),(\d+)", spec)
    if not match:
        raise ConfigError(f"{form}; it is {short(spec)}.")
    host, port, count, rank = match[1], *map(int, match.groups()[1:])
    if not 0 < port < 65536:
        raise ConfigError(f"{form}: the port {port} is not between 1 and 65535.")
    if not rank < count:
        last = f"0 to {count - 1}" if count else "none"
        raise ConfigError(f"{form}: of {count} processes the ranks are {last}, not {rank}.")
    return Address(f"{host}:{port}", count, rank)


def _check_slurm(spec: str) -> None:
    """ConfigError if the variables of Slurm are there in part: a shell of salloc, or ssh."""
    missing = [name for name in SLURM if name not in os.environ]
    if spec == "auto" and SLURM[0] in os.environ and missing:
        raise ConfigError(
            f"--distributed=auto: this is Slurm job {os.environ[SLURM[0]]}, but {missing[0]} is "
            "not set: start the command with srun, or name the processes with "
            "--distributed=HOST:PORT,COUNT,RANK."
        )


def _join(address: Address | None, timeout: float) -> None:
    """Connects to the other processes. Raises as `begin` does."""
    import jax

    if address and address.rank:
        signals.prefix = f"[{address.rank}] "
    aborts.delay_lines()
    cli.start_logging()  # to the new stderr
    aborts.catch(lambda: _give_up(address, timeout))  # what JAX does after the timeout
    try:
        with _telling(address, timeout):
            jax.distributed.initialize(
                coordinator_address=address.coordinator if address else None,
                num_processes=address.count if address else None,
                process_id=address.rank if address else None,
                cluster_detection_method="deactivate" if address else None,
                initialization_timeout=int(timeout),
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            )
    except ValueError as error:
        raise ConfigError(
            f"--distributed=auto finds no cluster here ({error}) It knows TPU pods, Slurm, Open "
            "MPI and Kubernetes (with the package kubernetes). Elsewhere name the processes with "
            "--distributed=HOST:PORT,COUNT,RANK."
        ) from error
    except Exception as error:  # of any kind: JAX passes on what its transport says
        raise PeerMissing(f"The processes could not be connected: {str(error)[:300]}") from error
    others = peers.joined()
    signals.prefix = f"[{others.rank}] " if others and others.rank else ""


def _give_up(address: Address | None, timeout: float) -> int:
    """Says that a process has not come; returns the exit code."""
    signals.tell(
        f"error: {_missing(address)} within {timeout:g} s (--join-timeout). Start all processes of "
        "the run, with the same COUNT and the same address, and see that they reach it."
    )
    return PeerMissing.exit_code


def _missing(address: Address | None) -> str:
    """Who has not come, as far as it can be known."""
    if address and address.rank and not aborts.answers(address.coordinator):
        return f"process 0 does not answer at {address.coordinator}"
    return f"not all{f' {address.count}' if address else ''} processes have come"


@contextlib.contextmanager
def _telling(address: Address | None, timeout: float) -> Iterator[None]:
    """Logs every SAY_EVERY_SECONDS that the block still waits."""
    done, began = threading.Event(), time.monotonic()

    def tell() -> None:
        while not done.wait(SAY_EVERY_SECONDS):
            waited = round(time.monotonic() - began)
            log.info("waiting: %s (%d s of %g)", _missing(address), waited, timeout)

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _check_kind(kind: str, require: str) -> None:
    """ConfigError for another kind than required, and for the CPU where nobody chose it."""
    if require and kind != require:
        raise ConfigError(f"--require={require}: JAX computes on {kind} here.{_advice(require)}")
    if require or kind != "cpu" or "cpu" in _platforms():
        return
    for package, for_kind in PLUGINS.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(package)
            raise ConfigError(
                f"{package} is installed, and JAX finds no {for_kind}: it would compute on the CPU."
                f"{_advice(for_kind)} If the CPU is meant, say --require=cpu."
            )


def _platforms() -> str:
    """The platforms that JAX is set to use, "" for no choice."""
    import jax

    chosen: Any = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    return chosen or ""


def _advice(kind: str) -> str:
    return {
        "gpu": " Is the extra [gpu] installed, and does nvidia-smi list a device?",
        "tpu": " Is the extra [tpu] installed, and does no other process hold the TPU?",
    }.get(kind, " Set JAX_PLATFORMS=cpu.")
