"""Regenerates the weights and random draws of the recorded reference runs from their seeds.

Those runs used PyTorch and NumPy generators with known seeds. NumPy never changes the output of
RandomState, and PyTorch's CPU generator is the same Mersenne twister. So no random array has to be
stored in the fixtures.
"""

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


class TorchDraws:
    """The random numbers of PyTorch's CPU generator after torch.manual_seed(seed)."""

    def __init__(self, seed: int):
        self._twister = np.random.RandomState(seed)

    def words(self, count: int) -> np.ndarray:
        """The next raw outputs of the generator, uint32 [count]."""
        return self._twister.randint(0, 2**32, count, dtype=np.uint32)

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """torch.randn(shape), float32, equal up to the last bits.

        The number of values must be below 16 or a multiple of 16.
        """
        size = math.prod(shape)
        return (self._normal_pairs(size) if size < 16 else self._normal_blocks(size)).reshape(shape)

    def _normal_blocks(self, size: int) -> np.ndarray:
        """Box-Muller in blocks of 16 values: eight radii, then eight angles, 24 bits each."""
        assert size % 16 == 0, "PyTorch would draw the last 16 values again"
        uniform = (self.words(size) & (2**24 - 1)).astype(np.float32) / np.float32(2**24)
        first, second = uniform.reshape(-1, 2, 8).swapaxes(0, 1)
        log = np.log(1 - first, dtype=float).astype(np.float32)
        radius, angle = np.sqrt(-2 * log), np.float32(2 * np.pi) * second
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)

    def _normal_pairs(self, size: int) -> np.ndarray:
        """Box-Muller in pairs of values, 53 bits each."""
        pairs = -(-size // 2)
        high, low = self.words(4 * pairs).astype(np.uint64).reshape(-1, 2).T
        uniform = ((high << np.uint64(32) | low) & np.uint64(2**53 - 1)) / 2**53
        angle, radius = 2 * np.pi * uniform[::2], np.sqrt(-2 * np.log1p(-uniform[1::2]))
        both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        return both.ravel()[:size].astype(np.float32)


def _initialised(shapes: Mapping[str, tuple[int, ...]], seed: int) -> Arrays:
    """Weights of all linear and convolution layers by kaiming_normal_.

    Draws that the constructors of the PyTorch modules make before are skipped.
    """
    draws = TorchDraws(seed)
    layers = {name: shape for name, shape in shapes.items() if len(shape) > 1}
    draws.words(sum(math.prod(shape) + shape[0] for shape in layers.values()))  # weights, biases
    fans = {name: math.prod(shape[1:]) for name, shape in layers.items()}
    return {
        name: draws.normal(shape) * np.float32(math.sqrt(2 / fans[name]))
        for name, shape in layers.items()
    }


def _perturbed(weights: Arrays, recipe: Mapping[str, Any], shapes: Mapping[str, tuple]) -> Arrays:
    """The weights, with random biases and norm scales instead of PyTorch's zeros and ones.

    Values are drawn for every array, also where they are not used, as in the recorded runs.
    """
    draws, perturbed = TorchDraws(recipe["perturb"]), {}
    for name, shape in shapes.items():
        normal, convolution = draws.normal(shape), len(shape) > 2 and "qkv" not in name
        if name.endswith("bias"):
            perturbed[name] = np.float32(0.1) * normal
        elif len(shape) == 1:
            perturbed[name] = 1 + np.float32(0.2) * normal
        else:
            scale = np.float32(recipe["convolutions"] if convolution else 1)
            perturbed[name] = weights[name] * scale
    return perturbed


def _student(teacher: Arrays, recipe: Mapping[str, Any]) -> Arrays:
    """The teacher plus normal noise.

    recipe["student_noise"] is (relative, minimum): the deviation of the noise is `relative` times
    the standard deviation of the array, but at least `minimum`.
    """
    draws, (relative, minimum) = TorchDraws(recipe["student"]), recipe["student_noise"]
    student = {}
    for name, weight in teacher.items():
        scale = max(relative * float(weight.std(ddof=1, dtype=float)), minimum)
        student[name] = weight + draws.normal(weight.shape) * np.float32(scale)
    return student


def teacher_and_student(recipe: Mapping[str, Any]) -> tuple[Arrays, Arrays]:
    """Returns two Palette networks by a recipe of fixtures/palette/weights.json, float32."""
    shapes = {name: tuple(shape) for name, shape in recipe["shapes"].items()}
    teacher = _perturbed(_initialised(shapes, recipe["init"]), recipe, shapes)
    return teacher, _student(teacher, recipe)


def palette_states(recipes: Mapping[str, Any], buffers: Arrays) -> dict[str, Arrays]:
    """Returns {name of the official file: its state dict}.

    buffers: the noise schedule arrays that the training files also contain.
    """
    teacher, student = teacher_and_student(recipes["network"])
    example_teacher, example = teacher_and_student(recipes["format_example"])
    prefixed = {f"teacher_{name}": array for name, array in example_teacher.items()}
    return {
        "network_Network": buffers | teacher,
        "network_unlearned": buffers | student,
        "format_example_with_teacher": buffers | example | prefixed,
    }


def feature_noise(recipe: Mapping[str, Any]) -> list[np.ndarray]:
    """Returns the noise that the Random Encoder's recorded loss drew, one array per feature map."""
    twister = np.random.RandomState(recipe["seed"])
    twister.randint(0, 2**32, recipe["skipped_words"], dtype=np.uint32)
    unit = recipe["unit"]
    draws = (twister.standard_normal(shape) for shape in recipe["shapes"])
    return [(np.round(normal / unit) * unit).astype(np.float32) for normal in draws]


def checks(state: Mapping[str, np.ndarray]) -> list[float]:
    """Returns one checksum per array: it depends on every value and on the order of the values."""
    flat = (array.ravel().astype(float) for array in state.values())
    return [float(array @ np.cos(np.arange(array.size))) for array in flat]


def with_signs(packed: bytes) -> bytes:
    """Returns an .npz of Inception's scales and shapes, with the packed sign bits added.

    The bits are drawn from the seed that the file contains.
    """
    stored, bits = np.load(io.BytesIO(packed)), {}
    twister = np.random.RandomState(int(stored["seed"]))
    twister.randint(0, 2**32, stored["skipped_words"], dtype=np.uint32)
    for name in stored["names"]:
        size = -(-math.prod(stored[f"shape/{name}"].tolist()) // 8)
        bits[f"bits/{name}"] = twister.randint(0, 256, size).astype(np.uint8)
    file = io.BytesIO()
    np.savez(file, **stored, **bits)
    return file.getvalue()


def completed(name: str, content: bytes) -> bytes:
    """Returns the content of tests/fixtures/NAME, plus arrays that are drawn from a stored seed."""
    return with_signs(content) if name == "fid_is/inception.npz" else content
