"""Start-up lines of C++ libraries are dropped, and only these."""

import os
import subprocess
import sys

from l2l_jax.lib import quiet
from tests.helpers import ROOT

LINES = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795997938.128663   31044 port.cc:153] oneDNN custom operations are on.",
    "E0000 00:00:1795997938.128663   31044 cuda_dnn.cc:8310] Unable to register cuDNN factory",
    "2026-11-30 00:19:03.123456: I tensorflow/core/util/port.cc:153] oneDNN is on",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with",
]
OTHERS = ["12:00:01 unlearn: 3 steps", "Error in a library", "I am a line", "E", ""]


def test_only_start_up_lines_are_dropped(capfd):
    with quiet.without_start_up_lines():
        for line in [*LINES, *OTHERS]:
            os.write(2, f"{line}\n".encode())
    os.write(2, b"I0000 00:00:1795997938.1 later\n")
    expected = [*OTHERS, "I0000 00:00:1795997938.1 later", ""]
    assert capfd.readouterr().err.split("\n") == expected


def test_settings_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    quiet.set_levels()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"


def test_lines_of_orbax_are_dropped_also_if_it_is_imported_after_logging_began():
    code = (
        "import logging; from l2l_jax.lib import cli; cli.start_logging()\n"
        "import absl.logging\n"
        "exec(compile(\"absl.logging.warning('a line')\", '/x/orbax/checkpoint.py', 'exec'))\n"
        "logging.getLogger('l2l_jax').info('ours')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "a line" not in done.stderr
    assert done.stderr.endswith(" ours\n")
