"""The published networks against arrays made by their PyTorch implementations.

Inception: the network of clean-fid and torchvision's; its weights are stored as signs and scales.
CLIP: OpenCLIP's visual tower, small. Tolerances are those of the fixtures' authors.
"""

import dataclasses
import functools
import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from l2l_jax.feature_networks import clip, inception, places
from l2l_jax.lib import trees
from l2l_jax.lib.errors import ConfigError, DataMissing, WrongWeights
from l2l_jax.registry import find
from l2l_jax.weights import torch_writer
from l2l_jax.weights.feature_networks import context
from l2l_jax.weights.published import NETWORK_FILES
from tests.helpers import unpacked

NETWORKS = ("inception", "clip", "places")
FEATURES, LOGITS, EMBEDDING = 1e-4, 2e-3, 1e-5


@functools.cache
def inception_state():
    """The official state dict, rebuilt from its signs."""
    stored, state = np.load(unpacked("fid_is/inception.npz")), {}
    for name, scale in zip(stored["names"], stored["scales"], strict=True):
        shape = tuple(stored[f"shape/{name}"])
        signs = np.unpackbits(stored[f"bits/{name}"])[: np.prod(shape)].astype(np.float32) * 2 - 1
        state[str(name)] = signs.reshape(shape) * scale
    rest = [key for key in stored.files if key.startswith("float/")]
    return state | {key.removeprefix("float/"): stored[key] for key in rest}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{kind: a file as it is published}; torchvision's has fewer outputs and an auxiliary head."""
    folder, state = tmp_path_factory.mktemp("networks"), inception_state()
    other = state | {name: state[name][:1000] for name in ("fc.weight", "fc.bias")}
    other["AuxLogits.fc.bias"] = np.zeros(1000, np.float32)
    found = {"fid": folder / "fid.pth", "torchvision": folder / "torchvision.pth"}
    torch_writer.write(found["fid"], state)
    torch_writer.write(found["torchvision"], other)
    return found


def seen(network, images):
    """Features and logits of uint8 images."""
    return jax.jit(network.apply)(network.params, jnp.asarray(images, jnp.float32) / 255)


@pytest.mark.parametrize(
    ("resize", "scale", "theirs"),
    [("legacy", "unit", "legacy_pytorch"), ("clean", "clean", "clean_normalisation")],
)
@pytest.mark.slow
def test_inception_features_are_those_of_the_reference(files, resize, scale, theirs):
    stored = np.load(unpacked("fid_is/inception_io.npz"))
    network = inception.build(
        context({}, {}, 64), weights=str(files["fid"]), resize=resize, scale=scale
    )
    features, logits = seen(network, stored["images_uint8_nhwc"])
    np.testing.assert_allclose(features, stored[f"{theirs}/features"], atol=FEATURES)
    assert logits.shape == (2, 1008)
    assert network.about["resize"] == f"{resize}, 299x299"
    assert network.about["sha256"] == hashlib.sha256(files["fid"].read_bytes()).hexdigest()


@pytest.mark.slow
def test_torchvision_logits_are_those_of_the_reference(files):
    stored = np.load(unpacked("fid_is/inception_io.npz"))
    args = dict(kind="torchvision", resize="legacy", scale="cifar")
    network = inception.build(context({}, {}, 64), weights=str(files["torchvision"]), **args)
    _, logits = seen(network, stored["is_images_uint8_nhwc"])
    np.testing.assert_allclose(logits, stored["torchvision/logits"], atol=LOGITS)


@pytest.mark.slow
def test_clip_embeddings_are_those_of_the_reference():
    """Raw images of odd sizes, through the resizing too."""
    stored = np.load(unpacked("clip/io.npz"))
    path = unpacked("clip/open_clip_pytorch_model.bin")
    network = clip.build(context({}, {}, 56), size="tiny", weights=str(path))
    for at, want in enumerate(stored["embedding"]):
        embedding, logits = seen(network, stored[f"raw_uint8_hwc/{at}"][None])
        np.testing.assert_allclose(embedding[0], want, atol=EMBEDDING)
        assert logits.shape == (1, 0)


@pytest.mark.slow
def test_places_has_the_shapes_of_the_published_file():
    """Names and shapes of torchvision's resnet50 with 365 classes, under DataParallel's prefix."""
    params = places.build(context({}, {}, 32), weights="random", size=32).params
    state = {"module.fc.weight": params["fc"]["kernel"].T, "module.fc.bias": params["fc"]["bias"]}

    def add(name, norm, kernel):
        outer = kernel.shape[-1]
        state[f"module.{name}.weight"] = np.asarray(kernel).transpose(3, 2, 0, 1)
        for key, value in (("weight", 2), ("bias", 3), ("running_mean", 5), ("running_var", 4)):
            state[f"module.{norm}.{key}"] = np.full(outer, value, np.float32)

    add("conv1", "bn1", params["conv1"]["kernel"])
    for at, layer in params["layers"].items():
        for i, block in layer.items():
            here = f"layer{at + 1}.{i}"
            for conv in (name for name in block if name.startswith("conv")):
                add(f"{here}.{conv}", f"{here}.bn{conv[-1]}", block[conv]["kernel"])
            if "downsample" in block:
                add(f"{here}.downsample.0", f"{here}.downsample.1", block["downsample"]["kernel"])
    ours = places.from_torch(state, Path("file"))
    assert not trees.difference(ours, params, "file", "network")
    gain = 2 / np.sqrt(4 + places.EPSILON)
    want = params["conv1"]["kernel"] * gain
    np.testing.assert_allclose(ours["conv1"]["kernel"], want, rtol=1e-5)
    np.testing.assert_allclose(ours["conv1"]["bias"], 3 - 5 * gain, rtol=1e-6)


@pytest.mark.slow
def test_places_is_a_resnet50_of_pytorch():
    """FeatureNetwork and logits through functions of PyTorch, the normalisations not folded."""
    torch = pytest.importorskip("torch")
    functional, rng, state = torch.nn.functional, np.random.default_rng(0), {}

    def conv(x, name, norm, outer, side=1, stride=1):
        shape = (outer, x.shape[1], side, side)
        spread = np.sqrt(2 / np.prod(shape[1:]))
        state[f"{name}.weight"] = rng.normal(0, spread, shape).astype(np.float32)
        for key, low, high in (("weight", 0.5, 1), ("bias", -0.1, 0.1), ("running_mean", -0.1, 0.1),
                               ("running_var", 0.5, 1.5)):  # fmt: skip
            state[f"{norm}.{key}"] = rng.uniform(low, high, outer).astype(np.float32)
        x = functional.conv2d(x, torch.tensor(state[f"{name}.weight"]), None, stride, side // 2)
        mean, var, gain, bias = (
            torch.tensor(state[f"{norm}.{key}"])
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, var, gain, bias)

    images = rng.integers(0, 256, (2, 64, 64, 3), np.uint8)
    x = (images / np.float32(255) - places.MEAN) / places.STD
    x = functional.relu(conv(torch.tensor(x).permute(0, 3, 1, 2), "conv1", "bn1", 64, 7, 2))
    x = functional.max_pool2d(x, 3, 2, 1)
    for layer, (depth, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
        for block in range(depth):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and not block else 1
            y = functional.relu(conv(x, f"{name}.conv1", f"{name}.bn1", width))
            y = functional.relu(conv(y, f"{name}.conv2", f"{name}.bn2", width, 3, stride))
            y = conv(y, f"{name}.conv3", f"{name}.bn3", 4 * width)
            if not block:
                down = f"{name}.downsample"
                x = conv(x, f"{down}.0", f"{down}.1", 4 * width, 1, stride)
            x = functional.relu(x + y)
    want = x.mean((2, 3))
    state["fc.weight"] = rng.normal(0, 0.02, (365, 2048)).astype(np.float32)
    state["fc.bias"] = rng.normal(0, 1, 365).astype(np.float32)
    logits = functional.linear(
        want, torch.tensor(state["fc.weight"]), torch.tensor(state["fc.bias"])
    )

    network = places.build(context({}, {}, 64), weights="random", size=64)
    network = dataclasses.replace(network, params=places.from_torch(state, Path("file")))
    for ours, theirs in zip(seen(network, images), (want, logits), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))


def test_random_weights_say_so():
    network = clip.build(context({}, {}, 56), size="tiny")
    assert network.about["weights"] == "random"
    assert network.about["digest"] == clip.build(context({}, {}, 56), size="tiny").about["digest"]


@pytest.mark.slow
def test_bfloat16_is_near_and_stated():
    images = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3), np.uint8)
    near = clip.build(context({}, {}, 56), size="tiny", dtype="bfloat16")
    exact, rough = (
        seen(n, images)[0] for n in (clip.build(context({}, {}, 56), size="tiny"), near)
    )
    assert near.about["dtype"] == "bfloat16"
    assert rough.dtype == np.float32
    assert 0 < np.abs(exact - rough).max() < 0.05 * np.abs(exact).max()


@pytest.mark.slow
def test_a_missing_file_says_where_it_comes_from(monkeypatch, tmp_path):
    monkeypatch.setenv("L2L_WEIGHTS", str(tmp_path))
    with pytest.raises(DataMissing, match=r"(?s)mseitzer/pytorch-fid.*l2l_jax\.weights\.fetch pt_"):
        inception.build(context({}, {}, 32))
    with pytest.raises(DataMissing, match=r"There is no file .*mine\.pth"):
        inception.build(context({}, {}, 32), weights=str(tmp_path / "mine.pth"))


def test_another_file_under_a_published_name_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("L2L_WEIGHTS", str(tmp_path))
    torch_writer.write(tmp_path / inception.FILES["fid"], {"a": np.zeros(3, np.float32)})
    with pytest.raises(WrongWeights, match=r"(?s)not the published file.*begins with 6726825d"):
        inception.build(context({}, {}, 32))


@pytest.mark.slow
def test_the_weights_of_another_network_are_refused(files, tmp_path):
    with pytest.raises(WrongWeights, match=r"has no visual.*another network"):
        clip.build(context({}, {}, 56), size="tiny", weights=str(files["fid"]))
    with pytest.raises(WrongWeights, match="does not fit"):
        inception.build(context({}, {}, 32), kind="torchvision", weights=str(files["fid"]))


@pytest.mark.parametrize(
    "args", [dict(kind="fidd"), dict(scale="cliff"), dict(resize="cleann", weights="random")]
)
def test_unknown_words_get_a_suggestion(args):
    with pytest.raises(ConfigError, match="Did you mean"):
        inception.build(context({}, {}, 32), **{"weights": "random", "size": 80, **args})


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_asked_for_is_a_published_one(name):
    module = find("feature_network", name)
    defaults = {"inception": dict(kind="fid"), "clip": dict(size="h14"), "places": {}}[name]
    assert module.file(weights="", **defaults) in NETWORK_FILES
    assert module.file(weights="mine.pth", **defaults) == "mine.pth"
