"""lib/signals.py: a pipe that nobody reads any more. The drills try SIGTERM and Ctrl-C."""

import subprocess
import sys

from tests.helpers import ROOT

PRINT = """
from l2l_jax.lib import cli
def main():
    print("x" * 1_000_000)
cli.run_with_clear_errors(main)
"""


def test_output_that_nobody_reads_ends_a_command_without_a_traceback():
    command = [sys.executable, "-c", PRINT]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141  # 128 + SIGPIPE, as a shell says it
