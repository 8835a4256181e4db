"""Several networks judge one run; those that are missing, or that nobody trained, are named."""

import json
import shutil

import pytest

from l2l_jax import evaluate, judge
from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError
from l2l_jax.report.collect import collect
from l2l_jax.report.compare import compared as page_of
from l2l_jax.report.compare import markdown
from l2l_jax.run import run
from tests.helpers import once, small_config, trained

NETWORKS = dict(
    tiny=dict(name="clip", args=dict(size="tiny")),
    gone=dict(name="inception", args=dict(weights="/nowhere/inception.pth")),
)
EVALUATORS = dict(
    fid=dict(),
    kid=dict(network="tiny"),
    clip=dict(evaluator="cosine", network="tiny"),
    is_gone=dict(evaluator="inception_score", network="gone"),
)


def config(**changes):
    made = small_config(networks=NETWORKS, **changes)
    made.evaluators = EVALUATORS
    return made


@pytest.fixture(scope="module")
def workdir():
    return once("judged", lambda folder: run(config(), folder))


def test_each_figure_comes_from_its_network(workdir):
    results = files.read_json(workdir / "results.json")
    for side in ("retain", "forget"):
        assert results["unlearned"][side].keys() == {"fid", "kid", "clip"}
        assert -1 <= results["unlearned"][side]["clip"] <= 1
    assert results["measured"]["clip"] == {"evaluator": "cosine", "network": "tiny"}
    assert results["measured"]["fid"]["network"] == "features"
    assert results["networks"].keys() == {"features", "tiny"}
    assert results["networks"]["tiny"]["resize"] == "pillow, 56x56"
    assert len(results["networks"]["tiny"]["digest"]) == 64


def test_what_is_missing_is_skipped_and_said(workdir):
    results = files.read_json(workdir / "results.json")
    assert results["skipped"] == {"is_gone": "There is no file /nowhere/inception.pth."}
    page = (workdir / "report.html").read_text()
    assert "Not measured: is_gone. There is no file /nowhere/inception.pth." in page


def test_random_weights_are_marked_on_the_page(workdir):
    text = (workdir / "report.html").read_text()
    assert "nobody trained the networks that measure KID, CLIP similarity." in text
    assert text.count("<small>random weights</small>") == 2
    assert "<td>FID</td>" in text
    both = [collect(workdir)] * 2
    assert page_of(both, {}).count("(random weights)") == 4, "two figures of two sides"
    heads = markdown(both, ["fid", "kid"]).splitlines()[0]
    assert "retain FID ↓" in heads
    assert "retain KID (random weights) ↓" in heads


def test_what_the_images_look_like_to_networks_is_kept(workdir, tmp_path, monkeypatch):
    """A second evaluation completes with the unlearned model only, and gives the same figures."""
    shutil.copytree(workdir, tmp_path / "run")
    completed, over = [], judge.Judge._over

    def counted(self, side, program):
        completed.append(side)
        return over(self, side, program)

    monkeypatch.setattr(judge.Judge, "_over", counted)
    evaluate.main(["--workdir", str(tmp_path / "run")])
    assert sorted(completed) == ["forget", "retain"]
    before, after = (files.read_json(path / "results.json") for path in (workdir, tmp_path / "run"))
    assert json.dumps(before["tasks"]) == json.dumps(after["tasks"])


@pytest.mark.parametrize(
    ("evaluators", "message"),
    [
        (dict(fid=dict(network="tinny")), r"No network called 'tinny'.*Did you mean 'tiny'"),
        (dict(fidd=dict()), "No evaluator called 'fidd'.*Did you mean 'fid'"),
        (dict(mine=dict(evaluator="reconstruction")), "more than one figure"),
        (dict(mine=dict(evaluator="fid", netwrk="tiny")), r"does not take 'netwrk'"),
    ],
)
def test_names_that_nobody_has(evaluators, message, tmp_path):
    wrong = config()
    wrong.evaluators = evaluators
    with pytest.raises(ConfigError, match=message):
        trained(wrong, tmp_path / "run")


def test_a_network_nobody_wrote(tmp_path):
    wrong = config()
    wrong.networks.tiny.name = "clipp"
    with pytest.raises(ConfigError, match="No features called 'clipp'"):
        trained(wrong, tmp_path / "run")
