"""The commands of docs/howto/deletion_request.md, in a small form, in their order."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from l2l_jax.lib import files
from l2l_jax.record.verify import verify
from tests.helpers import ROOT

PAGE = ROOT / "docs" / "howto" / "deletion_request.md"
SMALL = (
    ("--config fashion_mnist ", "--config small.py "),
    ("membership,memorization,distinguish,duplicates", "duplicates"),
)
ONLINE = "# Needs: a network"  # tests/record/record_test.py signs with a stand-in for Sigstore
CONFIG = """
from configs import common, fashion_mnist
from l2l_jax.registry import find

FORMS = fashion_mnist.FORMS


def get_config(form=""):
    config = fashion_mnist.get_config(f"{form},smoke")
    config.model.args = dict(find("model", "mae").SMALLEST)
    config.weights, config.phases = "", ("pretrain", "unlearn")
    config.tasks.center.args.cells = 2
    small = dict(tasks=("center",), steps=1, batch_size=8)
    config.pretrain = common.phase("pretrain", on="all", **small)
    config.unlearn.update(small)
    config.split.images_per_class, config.split.eval_images_per_class = 10, 8
    config.evaluators, config.audits = dict(reconstruction=dict()), ()
    config.evaluate.tasks, config.runtime.tensorboard = ("center",), False
    return config
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the keys")
def test_the_walk_through(tmp_path):
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.M)
    assert len(blocks) >= 6
    text = "".join(block for block in blocks if not block.startswith(ONLINE))
    for old, new in SMALL:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "small.py").write_text(CONFIG)
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    program = f'set -e\nl2l-jax() {{ {sys.executable} -m l2l_jax "$@"; }}\n{text}'
    done = subprocess.run(["bash", "-c", program], cwd=tmp_path, env=env, capture_output=True,
                          text=True, timeout=900)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "runs" / "request"
    assert "recipe images: config.split.forget.files lists single images" in done.stderr
    assert len(files.read_json(run / "answers.json")["rows"]) == 16
    assert files.read_json(run / "record" / "request.json")["recipe"]["name"] == "images"
    assert "The recipe is images: " in (run / "record" / "model_card.md").read_text()
    assert "signed by the owner of public.pem" in done.stdout
    assert "none removed" in done.stdout
    assert verify(run).intact
