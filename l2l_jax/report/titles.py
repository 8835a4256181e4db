"""Names of models and data sets that people read; a plug-in without one keeps its own name."""

from collections.abc import Mapping
from typing import Any

MODELS = {
    "autoencoder": "convolutional autoencoder",
    "diffusion": "diffusion model",
    "mae": "masked autoencoder",
    "mage": "masked-token transformer",
    "vqgan": "VQ-GAN tokenizer",
}
DATA = {
    "cifar10": "CIFAR-10",
    "coco": "COCO",
    "fashion_mnist": "Fashion-MNIST",
    "folder": "a folder of images",
    "imagenet": "ImageNet",
    "places365": "Places365",
}
ADJECTIVES = ("tiny", "small", "large", "huge")  # sizes that read well before a name


def of_model(model: Mapping[str, Any]) -> str:
    """The section config.model in words, with its article: "a small masked autoencoder"."""
    name: str = MODELS.get(model["name"]) or model["name"]
    size = str(model["args"].get("size", ""))
    words = f"{size if size in ADJECTIVES else f'{size}-size'} {name}" if size else name
    return f"{'an' if words[:1] in tuple('aeiou') else 'a'} {words}"


def of_data(name: str) -> str:
    """The name of a data set as its authors write it."""
    return DATA.get(name, name)
