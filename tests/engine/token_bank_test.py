"""Tokens made before training: the same result as from images; wrong caches are refused."""

import jax
import numpy as np
import pytest

from l2l_jax.engine.run import run
from l2l_jax.lib import files, trees
from l2l_jax.lib.errors import ConfigError
from l2l_jax.registry import find
from l2l_jax.weights import safetensors
from tests.helpers import assert_same_bits, once, params_of, small_config, small_model, trained


def mage_config(folder="", **cache):
    """helpers.small_config with the smallest MAGE and a random tokenizer."""
    config = small_config()
    config.model = dict(name="mage", args=find("model", "mage").SMALLEST)
    config.tasks.random_ratio = dict(task="random_ratio", args=dict())
    config.pretrain.tasks = config.unlearn.tasks = ("random_ratio",)
    config.unlearn.steps = 4
    config.evaluators = dict(reconstruction=dict())
    config.data.token_cache.update(dict(noise=16) | cache)
    config.runtime.token_folder = folder
    return config


def losses(folder):
    records = list(files.read_jsonl(folder / "metrics.jsonl"))
    return np.array([[r["retain"], r["forget"]] for r in records if r["phase"] == "unlearn"])


@pytest.fixture(scope="module")
def pixels():
    """The workdir of a run on images."""
    return once("mage_on_pixels", lambda folder: trained(mage_config(views=0), folder))


@pytest.mark.slow
def test_a_run_on_tokens_equals_the_run_on_images(pixels, tmp_path):
    """There are no crops or flips, so one view holds all information."""
    results = run(mage_config(views=1), tmp_path / "tokens")
    np.testing.assert_allclose(losses(tmp_path / "tokens"), losses(pixels), rtol=1e-5, atol=1e-9)
    page = (tmp_path / "tokens" / "report.html").read_text()
    assert "as 1 augmented view (K)" in page
    assert "Whole retain images, tokenised and decoded" in page
    assert set(results["tokenizer"]) == {"retain", "forget"}
    assert 0 < results["tokenizer"]["retain"]["codebook_usage"] <= 1
    assert (tmp_path / "tokens" / "images" / "tokenizer_forget.png").exists()
    trained(mage_config(views=1), tmp_path / "again")
    assert_same_bits(params_of(tmp_path / "again"), params_of(tmp_path / "tokens"))


@pytest.mark.slow
def test_noise_is_drawn_from_a_bank_or_in_every_step(pixels, tmp_path):
    trained(mage_config(noise=0), tmp_path / "anew")
    bank, anew = losses(pixels), losses(tmp_path / "anew")
    assert len(bank) == len(anew) == 4
    assert not np.allclose(bank[:, 1], anew[:, 1])


@pytest.mark.slow
def test_tokens_need_a_bank_of_noise(tmp_path):
    with pytest.raises(ConfigError, match=r"let data.token_cache.noise be at least 1"):
        run(mage_config(views=1, noise=0), tmp_path / "run")


def test_a_model_of_pixels_takes_no_tokens(tmp_path):
    config = small_config()
    config.data.token_cache.views = 2
    with pytest.raises(
        ConfigError, match=r"needs a model over a frozen tokenizer.*; a mae is given"
    ):
        run(config, tmp_path / "run")


@pytest.mark.slow
def test_a_cache_of_another_tokenizer(tmp_path):
    folder = str(tmp_path / "cache")
    trained(mage_config(views=1, folder=folder), tmp_path / "one")
    other = mage_config(views=1, folder=folder)
    other.seed = 1  # another random tokenizer
    with pytest.raises(ConfigError, match="holds tokens made with another tokenizer"):
        run(other, tmp_path / "two")


@pytest.mark.slow
def test_pretraining_can_start_from_a_tokenizer_and_unlearning_cannot(tmp_path):
    model = small_model("vqgan")
    params = jax.device_get(model.init(jax.random.key(5)))
    about = {"model": "vqgan", "args": find("model", "vqgan").SMALLEST}
    safetensors.save(tmp_path / "vq.safetensors", params, about)
    config = mage_config(views=1)
    config.weights = str(tmp_path / "vq.safetensors")
    trained(config, tmp_path / "run")
    result = params_of(tmp_path / "run")
    for name, value in trees.flatten(params).items():
        np.testing.assert_array_equal(result[f"tokenizer/{name}"], value)
    config.phases = ("unlearn",)
    with pytest.raises(ConfigError, match="holds only the tokenizer of a mage"):
        run(config, tmp_path / "other")


@pytest.mark.parametrize("key", ["views", "noise"])
def test_negative_numbers_are_refused(key, tmp_path):
    with pytest.raises(ConfigError, match=rf"token_cache.{key} is at least 0 and .*, not -1"):
        run(mage_config(**{key: -1}), tmp_path / "run")
