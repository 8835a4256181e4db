"""Weights and draws of the recorded reference runs, made again from their seeds.

Those runs used PyTorch and NumPy generators with known seeds. NumPy's RandomState is frozen, and
PyTorch's generator on a CPU is the same Mersenne twister, so that nothing random need be stored.
"""

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


class TorchDraws:
    """The numbers that PyTorch's CPU generator yields after manual_seed(seed)."""

    def __init__(self, seed: int):
        self._twister = np.random.RandomState(seed)

    def words(self, count: int) -> np.ndarray:
        """Raw 32-bit outputs, uint32."""
        return self._twister.randint(0, 2**32, count, dtype=np.uint32)

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """torch.randn(shape), but for the last bits; a size is a multiple of 16, or below 16."""
        size = math.prod(shape)
        return (self._few(size) if size < 16 else self._many(size)).reshape(shape)

    def _many(self, size: int) -> np.ndarray:
        """Box-Muller in blocks of 16: eight radii, then eight angles, of 24 bits each."""
        assert size % 16 == 0, "PyTorch would draw the last 16 again"
        uniform = (self.words(size) & (2**24 - 1)).astype(np.float32) / np.float32(2**24)
        first, second = uniform.reshape(-1, 2, 8).swapaxes(0, 1)
        log = np.log(1 - first, dtype=float).astype(np.float32)
        radius, angle = np.sqrt(-2 * log), np.float32(2 * np.pi) * second
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)

    def _few(self, size: int) -> np.ndarray:
        """Box-Muller in pairs, of 53 bits each."""
        pairs = -(-size // 2)
        high, low = self.words(4 * pairs).astype(np.uint64).reshape(-1, 2).T
        uniform = ((high << np.uint64(32) | low) & np.uint64(2**53 - 1)) / 2**53
        angle, radius = 2 * np.pi * uniform[::2], np.sqrt(-2 * np.log1p(-uniform[1::2]))
        both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        return both.ravel()[:size].astype(np.float32)


def _initialised(shapes: Mapping[str, tuple[int, ...]], seed: int) -> Arrays:
    """Weights of all linear and convolution layers by kaiming_normal_, after the modules' own."""
    draws = TorchDraws(seed)
    layers = {name: shape for name, shape in shapes.items() if len(shape) > 1}
    draws.words(sum(math.prod(shape) + shape[0] for shape in layers.values()))  # and their biases
    fans = {name: math.prod(shape[1:]) for name, shape in layers.items()}
    return {
        name: draws.normal(shape) * np.float32(math.sqrt(2 / fans[name]))
        for name, shape in layers.items()
    }


def _perturbed(weights: Arrays, recipe: Mapping[str, Any], shapes: Mapping[str, tuple]) -> Arrays:
    """With biases and norms that matter; something is drawn for every array, used or not."""
    draws, found = TorchDraws(recipe["perturb"]), {}
    for name, shape in shapes.items():
        normal, convolution = draws.normal(shape), len(shape) > 2 and "qkv" not in name
        if name.endswith("bias"):
            found[name] = np.float32(0.1) * normal
        elif len(shape) == 1:
            found[name] = 1 + np.float32(0.2) * normal
        else:
            found[name] = weights[name] * np.float32(recipe["convolutions"] if convolution else 1)
    return found


def _student(teacher: Arrays, recipe: Mapping[str, Any]) -> Arrays:
    """The teacher plus noise: so many of an array's standard deviations, but at least so much."""
    draws, (relative, least) = TorchDraws(recipe["student"]), recipe["student_noise"]
    found = {}
    for name, weight in teacher.items():
        scale = max(relative * float(weight.std(ddof=1, dtype=float)), least)
        found[name] = weight + draws.normal(weight.shape) * np.float32(scale)
    return found


def teacher_and_student(recipe: Mapping[str, Any]) -> tuple[Arrays, Arrays]:
    """The two Palette networks of a recipe in fixtures/palette/weights.json, float32."""
    shapes = {name: tuple(shape) for name, shape in recipe["shapes"].items()}
    teacher = _perturbed(_initialised(shapes, recipe["init"]), recipe, shapes)
    return teacher, _student(teacher, recipe)


def palette_states(recipes: Mapping[str, Any], buffers: Arrays) -> dict[str, Arrays]:
    """{name of the official file: its state dict}. `buffers` is the tiny training schedule."""
    teacher, student = teacher_and_student(recipes["network"])
    old, new = teacher_and_student(recipes["format_example"])
    old = {f"teacher_{name}": array for name, array in old.items()}
    return {
        "network_Network": buffers | teacher,
        "network_unlearned": buffers | student,
        "format_example_with_teacher": buffers | new | old,
    }


def feature_noise(recipe: Mapping[str, Any]) -> list[np.ndarray]:
    """The draws of the Random Encoder's loss, one array per feature map, exactly as recorded."""
    twister = np.random.RandomState(recipe["seed"])
    twister.randint(0, 2**32, recipe["skipped_words"], dtype=np.uint32)
    unit = recipe["unit"]
    draws = (twister.standard_normal(shape) for shape in recipe["shapes"])
    return [(np.round(normal / unit) * unit).astype(np.float32) for normal in draws]


def checks(state: Mapping[str, np.ndarray]) -> list[float]:
    """A number per array, in order, that changes with any value and with the values' order."""
    flat = (array.ravel().astype(float) for array in state.values())
    return [float(array @ np.cos(np.arange(array.size))) for array in flat]


def with_signs(packed: bytes) -> bytes:
    """An .npz of Inception's scales and shapes, completed with its signs as packed bits."""
    stored, bits = np.load(io.BytesIO(packed)), {}
    twister = np.random.RandomState(int(stored["seed"]))
    twister.randint(0, 2**32, stored["skipped_words"], dtype=np.uint32)
    for name in stored["names"]:
        size = -(-math.prod(stored[f"shape/{name}"].tolist()) // 8)
        bits[f"bits/{name}"] = twister.randint(0, 256, size).astype(np.uint8)
    whole = io.BytesIO()
    np.savez(whole, **stored, **bits)
    return whole.getvalue()


def completed(name: str, content: bytes) -> bytes:
    """What tests/fixtures/NAME holds, with what its seed makes and is therefore not stored."""
    return with_signs(content) if name == "fid_is/inception.npz" else content
