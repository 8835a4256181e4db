"""Official files in, official files out, and a run's result as the start of the next one."""

import shutil

import jax
import numpy as np
import pytest

from l2l_jax.engine.run import run
from l2l_jax.lib import trees
from l2l_jax.lib.errors import ConfigError, DataMissing, WrongWeights
from l2l_jax.models import mae
from l2l_jax.types import FileFormat
from l2l_jax.weights import __main__, convert, name_map, safetensors, torch_reader, torch_writer
from l2l_jax.weights.pretrained import load, locate
from l2l_jax.weights.published import MODEL_FILES
from tests.helpers import (
    assert_same_bits,
    finished_run,
    small_config,
    small_model,
    trained,
    unpacked,
)

OFFICIAL_FILE = unpacked("mae/checkpoint_model.pth")
TOLD = ["--set", "heads=3", "--set", "decoder_heads=4"]


def test_there_and_back_is_the_same_file(tmp_path, capsys):
    ours, theirs = tmp_path / "mae.safetensors", tmp_path / "back.pth"
    __main__.main(["import", str(OFFICIAL_FILE), str(ours), *TOLD])
    assert "'heads': 3" in capsys.readouterr().out, "it prints what to write into a config"
    __main__.main(["export", str(ours), str(theirs)])
    before, after = (torch_reader.read(path)["model"] for path in (OFFICIAL_FILE, theirs))
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
        assert before[name].dtype == after[name].dtype
    about = safetensors.load(ours).about
    assert about["source"]["file"] == "checkpoint_model.pth"
    assert len(about["source"]["sha256"]) == 64


def test_pytorch_loads_the_export(tmp_path):
    torch = pytest.importorskip("torch")
    __main__.main(["import", str(OFFICIAL_FILE), str(tmp_path / "a.safetensors"), *TOLD])
    __main__.main(["export", str(tmp_path / "a.safetensors"), str(tmp_path / "b.pth")])
    before, after = (
        torch.load(path, map_location="cpu", weights_only=True)["model"]
        for path in (OFFICIAL_FILE, tmp_path / "b.pth")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_another_image_size(tmp_path):
    target = tmp_path / "large.safetensors"
    __main__.main(["import", str(OFFICIAL_FILE), str(target), *TOLD, "--set", "image_size=96"])
    loaded = safetensors.load(target)
    assert loaded.about["args"]["image_size"] == 96
    assert loaded.params["positions"]["encoder"].shape == (37, 48)
    original = torch_reader.read(OFFICIAL_FILE)["model"]
    np.testing.assert_array_equal(
        loaded.params["positions"]["encoder"][0], original["pos_embed"][0, 0]
    )


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.slow
def test_a_run_starts_from_an_official_file(direct, tmp_path):
    config = small_config(phases=("unlearn",))
    config.model.args = dict(size="base", image_size=64, width=48, depth=3, patch=16, heads=3,
                             decoder_width=32, decoder_depth=2, decoder_heads=4)  # fmt: skip
    config.data.args = dict(classes=4, train=16, eval=8, size=64)
    config.unlearn.steps = 2
    config.weights = str(OFFICIAL_FILE)
    if not direct:
        __main__.main(["import", str(OFFICIAL_FILE), str(tmp_path / "w.safetensors"), *TOLD])
        config.weights = str(tmp_path / "w.safetensors")
    outcome = trained(config, tmp_path / "run")
    assert outcome.done == {"unlearn": (2, 2)}
    state = torch_reader.read(OFFICIAL_FILE)["model"]
    exported = tmp_path / "out.pth"
    __main__.main(["export", str(tmp_path / "run"), str(exported)])
    after = torch_reader.read(exported)["model"]
    same = {name for name in state if np.array_equal(state[name], after[name])}
    frozen = {
        name for name in state if name.startswith("decoder") or name in ("mask_token", "pos_embed")
    }
    assert frozen <= same, "decoder and positions are bit-identical after unlearning"
    assert not any(name.startswith("blocks") and name.endswith("weight") for name in same)
    began, ended = (jax.device_get(params) for params in (outcome.original, outcome.final))
    assert trees.digest(began) != trees.digest(ended)


@pytest.mark.slow
def test_the_result_of_a_run_is_the_start_of_another(tmp_path):
    first = shutil.copytree(finished_run(), tmp_path / "first")
    out = tmp_path / "made.safetensors"
    __main__.main(["export", str(first), str(out), "--half"])
    digest = safetensors.load(out).about["digest"]
    second = small_config(phases=("unlearn",), weights=str(out))
    second.evaluators = dict(reconstruction=dict())
    results = run(second, tmp_path / "second")
    assert results["digests"]["weights"]["original"] == digest


@pytest.mark.slow
def test_scanned_blocks_change_no_digest(tmp_path):
    results = []
    for scan in (False, True):
        config = small_config(phases=("unlearn",), weights=str(tmp_path / "w.safetensors"))
        config.model.args.scan = scan
        config.evaluators = dict(reconstruction=dict())
        if not scan:
            model = small_model("mae")
            params = jax.device_get(model.init(jax.random.key(0)))
            about = {"model": "mae", "args": mae.SMALLEST}
            safetensors.save(tmp_path / "w.safetensors", params, about)
        results.append(run(config, tmp_path / f"run{scan}"))
    listed, scanned = (r["digests"]["weights"]["original"] for r in results)
    assert listed == scanned
    for side in ("retain", "forget"):
        a, b = (r["unlearned"][side]["psnr"] for r in results)
        assert a == pytest.approx(b, abs=1e-3)


@pytest.mark.parametrize(("key", "value"), [("heads", 4), ("norm_pix", True)])
def test_what_no_shape_shows_is_checked_all_the_same(key, value, tmp_path):
    __main__.main(["import", str(OFFICIAL_FILE), str(tmp_path / "w.safetensors"), *TOLD])
    args = safetensors.load(tmp_path / "w.safetensors").about["args"]
    assert load(str(tmp_path / "w.safetensors"), "mae", args).about["args"] == args
    with pytest.raises(WrongWeights, match=f"{key}: .* there, {value} in the config"):
        load(str(tmp_path / "w.safetensors"), "mae", args | {key: value})


def test_what_is_no_state_dict_is_said_to_be_none(tmp_path):
    torch_writer.write(
        tmp_path / "x.pth", {"model": np.zeros(2), name_map.EXTRA_KEY: {"y": np.zeros(2)}}
    )
    with pytest.raises(WrongWeights, match=r"x\.pth holds a ndarray, not a state dict"):
        load(str(tmp_path / "x.pth"), "mae", mae.SMALLEST)


def test_list_names_every_published_file(capsys):
    __main__.main(["list"])
    said = capsys.readouterr().out
    for name, file in MODEL_FILES.items():
        assert name in said
        assert file.url in said
        assert file.url.startswith("https://")
    assert "bundled:mae_fashion_mnist" in said


def test_what_does_not_exist(tmp_path):
    with pytest.raises(DataMissing, match="published at https"):
        __main__.main(["import", "mae_visualize_vit_base.pth", str(tmp_path / "x.safetensors")])
    with pytest.raises(DataMissing, match="no weights file and no workdir"):
        __main__.main(["export", str(tmp_path / "nowhere"), str(tmp_path / "x.pth")])
    source = str(locate("bundled:mae_fashion_mnist"))
    with pytest.raises(ConfigError, match=r"should end in \.safetensors"):
        __main__.main(["export", source, str(tmp_path / "x.bin")])


def test_a_model_without_an_official_format_is_neither_imported_nor_exported(monkeypatch, tmp_path):
    monkeypatch.setattr(convert, "find_format", FileFormat)
    message = (
        r"^The model 'mae' has no official file format; its weights are \.safetensors files\.$"
    )
    with pytest.raises(ConfigError, match=message):
        __main__.main(["import", str(OFFICIAL_FILE), str(tmp_path / "x.safetensors")])
    source = str(locate("bundled:mae_fashion_mnist"))
    with pytest.raises(ConfigError, match=message):
        __main__.main(["export", source, str(tmp_path / "x.pth")])


@pytest.mark.parametrize("form", ["", "mage", "mage,pretrain", "diffusion"])
def test_the_bundled_weights_fit_their_config(form):
    from configs import fashion_mnist

    config = fashion_mnist.get_config(form)
    loaded = load(config.weights, config.model.name, config.model.args.to_dict())
    assert trees.count(loaded.params) > 5e5
    if form == "diffusion":  # made in the released variant, whose halves share one
        halves = (loaded.params[group]["embed"] for group in ("encoder", "decoder"))
        assert_same_bits(*map(trees.flatten, halves))
