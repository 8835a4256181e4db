"""The PSNR of every class, the classes of the examples, and images that nobody may see."""

import numpy as np
import pytest

from l2l_jax.engine.evaluated import withheld
from l2l_jax.engine.run import run
from l2l_jax.lib import files
from l2l_jax.registry import find
from tests.helpers import finished_run, small_config


@pytest.mark.slow
def test_classes_add_up_to_their_side():
    results = files.read_json(finished_run() / "results.json")
    for side in ("retain", "forget"):
        classes = results["by_class"]["center"][side]
        assert list(classes) == results["classes"][f"{side}_eval"]
        images = np.array([each["images"] for each in classes.values()])
        assert images.sum() == results["counts"][side]
        for variant in ("original", "unlearned"):
            psnr = np.array([each["psnr"][variant] for each in classes.values()])
            mean = (psnr * images).sum() / images.sum()
            assert mean == pytest.approx(results[variant][side]["psnr"], abs=1e-4)
        assert set(results["examples"][side]) <= set(classes)
        assert len(results["examples"][side]) == min(10, results["counts"][side])


def test_only_the_images_of_a_list_are_withheld():
    config = {"split": {"forget": {"files": ""}}, "report": {"show_forgotten": False}}
    assert not withheld(config, "forget")
    config["split"]["forget"]["files"] = "delete.txt"
    assert withheld(config, "forget")
    assert withheld(config, "forget_train")
    assert not withheld(config, "retain")
    config["report"]["show_forgotten"] = True
    assert not withheld(config, "forget")


@pytest.mark.slow
def test_no_picture_of_listed_images_is_written(tmp_path):
    source = find("dataset", "fake").load("train", **small_config().data.args.to_dict())
    (tmp_path / "delete.txt").write_text("\n".join(source.keys[:4]))
    config = small_config()
    config.split.forget.classes = ()
    config.split.forget.files = str(tmp_path / "delete.txt")
    config.evaluators = dict(reconstruction=dict())
    run(config, tmp_path / "run")
    written = {path.stem for path in (tmp_path / "run" / "images").glob("*.png")}
    assert written == {"center_retain"}
    results = files.read_json(tmp_path / "run" / "results.json")
    assert list(results["examples"]) == ["retain"]
    assert "nothing that somebody asked to delete" in (tmp_path / "run/report.html").read_text()
