"""Several processes that form one run: what they compute, and how they end when one is gone.

    python -m launch.drills.hosts [--quick] [--only TEXT] [--verbose]

Two processes on this machine (in the complete drill also four), each with one CPU device, run the
smallest experiment. They must compute what one process computes. When one is killed, receives
SIGTERM, has another workdir, or never comes, all others must end within SECONDS after that, with
the exit code and the words that the table of the cases names, and without a traceback. --quick
leaves out most cases and the comparison with one process, which tests/resume_test.py makes, too.
"""

import argparse
import dataclasses
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from launch.drills import commands, ending

SECONDS = 30.0  # from the event to the end of the last process
START_SECONDS = 600.0  # until the event; this machine may be busy
LOSS_TOLERANCE = 1e-5
LONG = ("--config.unlearn.steps=3000", "--config.runtime.save_every=1000")
TRAINING = "unlearn 3/"
SAVED = "unlearn is saved up to step"


@dataclasses.dataclass(frozen=True)
class Case:
    """What happens to one process of a run, and how all processes must end.

    line: of the log of process 0, after which `number` is sent to process `rank`. words: of the
    command. says: what the log of every other process contains, {} = the rank of the lost process.
    """

    name: str
    count: int
    rank: int
    line: str
    number: int
    code: int
    says: str
    words: tuple[str, ...] = LONG
    command: str = "main"
    delay: float = 0.3


KILL, TERM = signal.SIGKILL, signal.SIGTERM
CLASSIFIER = ("--config.networks.main.args.epochs=3000",)
QUICK = [
    Case("SIGTERM to 1 of 2 in training", 2, 1, TRAINING, TERM, 143, SAVED),
    Case("kill -9 of 0 of 2 in training", 2, 0, TRAINING, KILL, 75, "process 0 of 2 is lost"),
    Case("kill -9 of 1 of 2 in training", 2, 1, TRAINING, KILL, 75, "process 1 of 2 is lost"),
]
CASES = [
    *QUICK,
    Case("kill -9 of 2 of 4 in training", 4, 2, TRAINING, KILL, 75, "process 2 of 4 is lost"),
    Case("SIGTERM to 0 of 2 in the checks", 2, 0, "forget: ", TERM, 143, "stopped by SIGTERM"),
    Case("SIGTERM to 0 of 2 that compile", 2, 0, "are trained", TERM, 143, "stopped by SIGTERM"),
    Case("SIGTERM to 3 of 4 in training", 4, 3, TRAINING, TERM, 143, SAVED),
    Case("SIGTERM to 1 of 2 that train the classifier", 2, 1, "training a classifier", TERM, 143,
         "stopped by SIGTERM", CLASSIFIER),
    Case("SIGTERM to 0 of 2 that evaluate", 2, 0, "held-out accuracy", TERM, 143,
         "stopped by SIGTERM", ("--config.evaluate.batch_size=8",)),
]  # fmt: skip
AUDIT = Case("SIGTERM to 1 of 2 that audit", 2, 1, "audit ", TERM, 143, "stopped by SIGTERM",
             ("--only", "probe"), "audit")  # fmt: skip


class Drill:
    """The cases in a temporary folder; their endings are collected in `rows`."""

    def __init__(self, folder: Path, only: str, verbose: bool) -> None:
        self.folder, self.only, self.verbose = folder, only, verbose
        self.rows: list[tuple[str, str]] = []

    def check(self, name: str, case: Callable[[], str]) -> None:
        """Runs a case, which returns what is wrong, or "" and then how long it took."""
        if self.only not in name:
            return
        print(f"{name} ...", flush=True)
        said = case()
        print(f"    {said or 'good'}", flush=True)
        self.rows.append((f"{name}: {said}", "explained" if said.startswith("good") else "silent"))

    def start(
        self,
        count: int,
        workdirs: Sequence[Path],
        words: Sequence[str],
        command: str = "main",
        ranks: Sequence[int] | None = None,
    ) -> list[tuple[Any, Path]]:
        """[(process, its log)] of a run; ranks: the processes that are started, () = alone."""
        address = f"localhost:{_free_port()}"
        started = []
        for rank, workdir in zip(range(count) if ranks is None else ranks, workdirs, strict=True):
            log = self.folder / f"{workdir.name}.{rank}.log"
            log.write_text("")
            config = [] if command == "audit" else ["--config", "tests/configs/small.py"]
            progress = [] if command == "audit" else ["--config.runtime.log_every=0.0"]
            several = [f"--distributed={address},{count},{rank}"] if count > 1 else []
            arguments = [*config, "--workdir", str(workdir), *progress, *several, *words]
            env = {"L2L_CACHE": str(self.folder / f"cache{rank}")}
            started.append((commands.start(command, arguments, env, str(log)), log))
        return started

    def finish(self, started: Sequence[tuple[Any, Path]], seconds: float) -> str:
        """Waits for the end of all; kills those that are late and returns their logs' names."""
        end, late = time.monotonic() + seconds, []
        for process, log in started:
            process.join(max(0.0, end - time.monotonic()))
            if process.exitcode is None:
                late.append(log.name)
                process.kill()
                process.join()
            if self.verbose:
                print(f"--- {log.name}: exit code {process.exitcode}\n{log.read_text()}")
        return f"not ended after {seconds:.0f} s: {', '.join(late)}" if late else ""

    def ended(self, case: Case) -> str:
        """Runs a case of the table."""
        name = "audited" if case.command == "audit" else case.name.replace(" ", "-")
        workdirs = [self.folder / name] * case.count
        started = self.start(case.count, workdirs, case.words, case.command)
        wrong = _wait_for(started[0], case.line)
        time.sleep(case.delay)
        process, began = started[case.rank][0], time.monotonic()
        if process.exitcode is None:
            os.kill(process.pid, case.number)
        wrong = wrong or self.finish(started, SECONDS if not wrong else 0)
        took = time.monotonic() - began
        logs = [log.read_text() for _, log in started]
        for rank, (process, _) in enumerate(started):
            code = -KILL if case.number == KILL and rank == case.rank else case.code
            if process.exitcode != code:
                wrong = wrong or f"process {rank} ended with {process.exitcode}, not {code}"
            if code == case.code and case.says not in logs[rank]:
                wrong = wrong or f"process {rank} does not say {case.says!r}"
            if "Traceback" in logs[rank] or "stack trace" in logs[rank]:
                wrong = wrong or f"process {rank} shows a traceback"
        steps = {text.split(SAVED)[1].split()[0] for text in logs if SAVED in text}
        if case.says == SAVED and len(steps) != 1:
            wrong = wrong or f"the processes stopped at different steps: {sorted(steps)}"
        return wrong or f"good, {took:.0f} s" + (f", at step {min(steps)}" if steps else "")

    def equal(self, count: int) -> str:
        """Several processes against one: the losses of all steps, and the same steps."""
        one, several = self.folder / "one", self.folder / f"several{count}"
        for folder, processes in ((one, 1), (several, count)):
            started = self.start(processes, [folder] * processes, ())
            wrong = "" if (folder / "report.html").exists() else self.finish(started, START_SECONDS)
            if wrong or any(process.exitcode for process, _ in started):
                return wrong or f"exit codes {[process.exitcode for process, _ in started]}"
        losses = [_losses(folder) for folder in (one, several)]
        if losses[0].keys() != losses[1].keys():
            return "other steps"
        worst = max(abs(losses[0][step] - losses[1][step]) for step in losses[0])
        words = f"largest difference of a loss {worst:.1e}"
        return f"good, {words}" if worst < LOSS_TOLERANCE else words

    def apart(self) -> str:
        """Every process has a workdir of its own."""
        workdirs = [self.folder / f"apart{rank}" for rank in range(2)]
        started = self.start(2, workdirs, ())
        if wrong := self.finish(started, START_SECONDS):
            return wrong
        logs = [log.read_text() for _, log in started]
        if any(process.exitcode != 2 for process, _ in started):
            return f"exit codes {[process.exitcode for process, _ in started]}, not 2"
        if not all("do not see what process 0 writes" in text for text in logs):
            return "not all say why"
        written = [path.name for folder in workdirs for path in folder.glob("metrics.jsonl")]
        return f"a step was taken: {written}" if written else "good, before the first step"

    def alone(self, rank: int) -> str:
        """The other process never comes."""
        limit, began = 12, time.monotonic()
        words = (f"--join-timeout={limit}",)
        (pair,) = self.start(2, [self.folder / "alone"], words, ranks=[rank])
        if wrong := self.finish([pair], limit + SECONDS):
            return wrong
        text, code = pair[1].read_text(), pair[0].exitcode
        if code != 75 or "waiting: " not in text or "--join-timeout" not in text:
            return f"exit code {code}: {text[-300:]}"
        return f"good, {time.monotonic() - began:.0f} s with a limit of {limit}"


def _wait_for(started: tuple[Any, Path], line: str) -> str:
    """Waits for a line of a log; "" or what is wrong."""
    process, log = started
    end = time.monotonic() + START_SECONDS
    while line not in log.read_text():
        if process.exitcode is not None:
            return f"ended before {line!r}: {log.read_text()[-500:]}"
        if time.monotonic() > end:
            return f"{line!r} does not appear"
        time.sleep(0.05)
    return ""


def _losses(workdir: Path) -> dict[tuple[str, int], float]:
    records = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {(record["phase"], record["step"]): record["loss"] for record in records}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def main() -> None:
    """The drill of this file's docstring."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--quick", action="store_true", help="some of the cases")
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    parser.add_argument("--verbose", action="store_true", help="print what each process said")
    args = parser.parse_args()
    if (code := commands.restarted("launch.drills.hosts")) is not None:
        sys.exit(code)
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="l2l_hosts_") as folder:
        drill = Drill(Path(folder), args.only, args.verbose)
        drill.check("1 of 2 never comes", lambda: drill.alone(0))
        drill.check("2 workdirs", drill.apart)
        for case in QUICK if args.quick else CASES:
            drill.check(case.name, lambda case=case: drill.ended(case))
        if not args.quick:
            drill.check("0 of 2 never comes", lambda: drill.alone(1))
            drill.check("2 processes are one run", lambda: drill.equal(2))
            drill.check("4 processes are one run", lambda: drill.equal(4))
            if (drill.folder / "several2").exists():
                (drill.folder / "several2").rename(drill.folder / "audited")
                drill.check(AUDIT.name, lambda: drill.ended(AUDIT))
    print(ending.table(drill.rows, began))
    sys.exit(ending.failed(drill.rows))


if __name__ == "__main__":
    main()
