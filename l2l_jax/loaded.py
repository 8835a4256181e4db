"""Loaded models: parameters with the functions that use them, for arrays of uint8 images.

api.py makes them from files and workdirs. Images are as files hold them, uint8 from 0 to 255; masks
are boolean, True = hidden.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8
from numpy.typing import ArrayLike

from l2l_jax import stored
from l2l_jax.data.images import resize_crop
from l2l_jax.lib import pixels, trees
from l2l_jax.lib import rng as rngs
from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.signatures import check_args, keyword_names
from l2l_jax.registry import find
from l2l_jax.types import Array, ImageToImage, Inputs, Params, Rng, TokenModel, Visible
from l2l_jax.workdir.layout import Workdir

Hidden = ArrayLike | str | Mapping[str, Any]  # a pixel mask, the name of a task, or a task section
RGB = UInt8[np.ndarray, "N H W 3"]
IMAGE_SHAPES = "[N, H, W, 3] or [H, W, 3], or without the last axis for greyscale"


class _Bound(NamedTuple):
    """The static arguments of a compiled program: the functions, and Task.visible or None."""

    functions: ImageToImage
    visible: Visible | None

    def corrupt(self, params: Params, rng: Rng, images: Array, mask: Array) -> Inputs:
        """T of uint8 images [N, H, W, 3] under a mask [N, h, w]."""
        given = pixels.to_unit_range(images)
        return self.functions.corrupt(params, given, mask, rng, visible=self.visible)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Model:
    """Parameters with the functions that use them.

    In all methods, N is the number of images, H and W are their height and width in pixels.

    images: uint8, [N, H, W, 3] or [H, W, 3]; greyscale [N, H, W] or [H, W] is repeated to three
    channels. Their sides are `image_size`; a convolutional model also takes other square images
    that its cells divide. `fit` makes images of any other size fit.

    hidden: what the model may not see. A boolean mask of pixels, [N, H, W] or one [H, W] for all
    images; or the name of a task (a file of tasks/), such as "center", with the arguments it has by
    default; or a task with arguments, as configs have it: dict(task="center", args=dict(cells=2)).
    A mask need not end where a cell ends: a model of patches or tokens then masks the whole cell.

    seed, batch_size: equal images, masks, seeds and batch sizes give equal results. Programs are
    compiled once for each shape, and kept by this object.

    ValueError says which dtype, shape or mask is wrong.
    """

    name: str  # a file of models/
    args: Mapping[str, Any]  # all arguments of its `build`
    params: Params  # nested dict of NumPy arrays, in the layout of weights files
    description: str  # what the parameters are, in words
    functions: ImageToImage  # the pure functions behind the methods
    _programs: dict[Any, Callable[..., Any]] = dataclasses.field(default_factory=dict, init=False)

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return self.functions.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the cells that the masks of tasks are drawn on."""
        return self.functions.grid

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the parameters, as in weights files and results.json."""
        return trees.digest(self.params)

    def __repr__(self) -> str:
        (rows, columns), size = self.grid, self.image_size
        return (
            f"<Model {self.name}: {trees.count(self.params):,} parameters, {size}x{size} pixels, "
            f"{rows}x{columns} cells, digest {self.digest[:16]}; {self.description}>"
        )

    def complete(
        self, images: ArrayLike, hidden: Hidden, seed: int = 0, *, batch_size: int = 64
    ) -> UInt8[np.ndarray, "..."]:
        """Images with their hidden pixels filled in; the visible pixels are those given, exactly.

        The model is never shown a hidden pixel, and no other pixel is replaced. Returns uint8 of
        the shape of `images`; greyscale images get the mean of the channels.

            >>> import l2l_jax
            >>> model = l2l_jax.load("bundled:mae_fashion_mnist")
            >>> hidden = np.zeros((32, 32), bool)
            >>> hidden[10:20, 5:25] = True
            >>> image = np.full((32, 32, 3), 128, np.uint8)
            >>> completed = model.complete(image, hidden)
            >>> bool((completed[~hidden] == 128).all())
            True
        """
        rgb, mask, bound = self._prepared(images, hidden, seed)
        made = self._map(_complete, bound, (rgb, mask), seed, batch_size)
        rows, columns = (rgb.shape[axis] // mask.shape[axis] for axis in (1, 2))
        on_pixels = mask.repeat(rows, axis=1).repeat(columns, axis=2)
        completed, shape = np.where(on_pixels[..., None], made, rgb), np.shape(images)
        if shape[-1] != 3:  # greyscale
            completed = np.rint(completed.mean(axis=-1)).astype(np.uint8)
        return completed.reshape(shape)

    def latents(
        self, images: ArrayLike, hidden: Hidden, seed: int = 0, *, batch_size: int = 64
    ) -> Any:
        """What the encoder returns: NumPy arrays [N, ...], float32, in a structure of the model's.

        The input is corrupted as in training: a diffusion model is shown hidden pixels under noise,
        drawn with the seed, and a MAGE makes the tokens of whole images before it masks some.
        """
        rgb, mask, bound = self._prepared(images, hidden, seed)
        return self._map(_latents, bound, (rgb, mask), seed, batch_size)

    def loss(
        self, images: ArrayLike, hidden: Hidden, seed: int = 0, *, batch_size: int = 64
    ) -> Float32[np.ndarray, " N"]:
        """The training loss of each image, whose input is corrupted as for `latents`."""
        rgb, mask, bound = self._prepared(images, hidden, seed)
        return self._map(_loss, bound, (rgb, mask), seed, batch_size)

    def tokens(
        self, images: ArrayLike, *, batch_size: int = 64
    ) -> Int32[np.ndarray, "N rows columns"]:
        """The codes of whole images. ValueError if the model has no tokenizer."""
        if not isinstance(self.functions, TokenModel):
            raise ValueError(f"The model {self.name} makes no tokens; mage and vqgan do.")
        rgb, functions = self._checked(images)
        return self._map(_tokens, _Bound(functions, None), (rgb,), 0, batch_size)

    def hidden_pixels(
        self, hidden: Hidden, count: int = 1, seed: int = 0
    ) -> Bool[np.ndarray, "N S S"]:
        """Which pixels `complete` hides of `count` images: bool [count, S, S], True = hidden."""
        mask, _ = _mask(self.functions, hidden, count, seed)
        factor = self.image_size // mask.shape[1]
        return mask.repeat(factor, axis=1).repeat(factor, axis=2)

    def with_params(self, params: Params) -> "Model":
        """This model with other parameters, such as trained ones, in the layout of `params`.

        What is compiled already is not compiled again.
        """
        made = dataclasses.replace(self, params=params)
        object.__setattr__(made, "_programs", self._programs)
        return made

    def fit(self, images: ArrayLike | Sequence[Any]) -> UInt8[np.ndarray, "..."]:
        """Images of any size as RGB of image_size: the central square, resized as evaluation does.

        images: one array, or a list of images of different sizes. Returns uint8 [N, S, S, 3], or
        [S, S, 3] for one image [H, W, 3] or [H, W], where S is image_size.

            >>> import l2l_jax
            >>> model = l2l_jax.load("bundled:mae_fashion_mnist")
            >>> model.fit(np.zeros((5, 40, 64, 3), np.uint8)).shape
            (5, 32, 32, 3)
        """
        if isinstance(images, list | tuple):
            return np.concatenate([self.fit(_rgb(image)) for image in images])
        array = np.asarray(images)
        fitted = np.stack([resize_crop(image, self.image_size) for image in _rgb(array)])
        single = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 3)
        return fitted[0] if single else fitted

    @functools.cached_property
    def _device_params(self) -> Params:
        return jax.device_put(trees.stack(self.params, self.functions.template))

    def _checked(self, images: ArrayLike) -> tuple[RGB, ImageToImage]:
        """The images as uint8 [N, H, W, 3], and the functions for their size."""
        rgb = _rgb(images)
        size, (height, width) = self.image_size, rgb.shape[1:3]
        if height == width == size:
            return rgb, self.functions
        text = (
            f"The model takes images of {size}x{size} pixels, not {height}x{width}; "
            "model.fit(images) crops and resizes them."
        )
        build = find("model", self.name).build
        fixed = "image_size" in self.functions.identity or "image_size" not in keyword_names(build)
        if fixed or height != width:
            raise ValueError(text)
        try:
            return rgb, build(**{**self.args, "image_size": height})
        except ConfigError as error:
            raise ValueError(f"{text} {error}") from error

    def _prepared(
        self, images: ArrayLike, hidden: Hidden, seed: int
    ) -> tuple[RGB, Bool[np.ndarray, "N h w"], _Bound]:
        """(images uint8 [N, H, W, 3], mask bool [N, h, w], what a program for them is bound to)."""
        rgb, functions = self._checked(images)
        mask, visible = _mask(functions, hidden, len(rgb), seed)
        return rgb, mask, _Bound(functions, visible)

    def _map(
        self,
        function: Callable[..., Any],
        bound: _Bound,
        columns: tuple[np.ndarray, ...],
        seed: int,
        batch_size: int,
    ) -> Any:
        """The function of one batch after the other; columns: arrays of N rows each."""
        if batch_size < 1:
            raise ValueError(f"batch_size is at least 1, not {batch_size}.")
        key = (function, bound.functions.image_size, bound.visible)
        if key not in self._programs:
            self._programs[key] = jax.jit(functools.partial(function, bound))
        program, rng, parts = self._programs[key], rngs.key(seed, "api"), []
        count = len(columns[0])
        for batch, start in enumerate(range(0, count, batch_size)):
            rows = [column[start : start + batch_size] for column in columns]
            given = len(rows[0])
            if count > batch_size:  # the last batch has the shape of the others
                rows = [np.concatenate([x, x[-1:].repeat(batch_size - given, 0)]) for x in rows]
            made = program(self._device_params, rngs.fold(rng, batch), *rows)
            parts.append(jax.tree.map(lambda x, n=given: np.asarray(x)[:n], made))
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


class Models(Mapping[str, Model]):
    """The models of one run, by name and as attributes: models["original"] is models.original."""

    def __init__(self, folder: Path, config: Mapping[str, Any], models: Mapping[str, Model]):
        self.folder, self.config, self._models = folder, config, dict(models)

    @property
    def original(self) -> Model:
        """The model before unlearning."""
        return self._models["original"]

    @property
    def unlearned(self) -> Model:
        """The model after the last phase."""
        return self._models["unlearned"]

    @property
    def retrained(self) -> Model:
        """The model that never saw the forget images. AttributeError if the config names none."""
        if "retrained" not in self._models:
            raise AttributeError(
                f"{self.folder} has no retrained model: its config.reference is empty."
            )
        return self._models["retrained"]

    @property
    def results(self) -> dict[str, Any]:
        """The figures of the run: the content of results.json. ConfigError if there are none."""
        try:
            return Workdir(self.folder).read_results()
        except FileNotFoundError as error:
            raise ConfigError(
                f"{self.folder} is not evaluated. Evaluate its last checkpoint with "
                f"'python -m l2l_jax.evaluate --workdir {self.folder}'."
            ) from error

    def images(
        self, split: str = "forget_eval", count: int = 10, seed: int = 0
    ) -> tuple[UInt8[np.ndarray, "N S S 3"], list[str]]:
        """(images of a split of the run, the class of each), as many of each class as possible.

        split: "forget", "retain", or those that were not trained on, "forget_eval" and
        "retain_eval". The images fit the models: uint8 [N, S, S, 3]. ConfigError if there is no
        such split, or if nobody may see the images of a list to forget; see
        config.report.show_forgotten. DataMissing if the data set is not there.
        """
        found, titles = stored.images(self.folder, self.config, split, count, seed)
        return next(iter(self._models.values())).fit(found), titles

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def __repr__(self) -> str:
        lines = [f"  {name}: {model!r}" for name, model in self.items()]
        return "\n".join([f"<Models of {self.folder}", *lines]) + ">"


def _rgb(images: ArrayLike) -> RGB:
    """One or several images, colour or greyscale, as uint8 [N, H, W, 3]. ValueError otherwise."""
    array = np.asarray(images)
    if array.dtype != np.uint8:
        advice = " Images in [0, 1] become uint8 by np.rint(images * 255).astype(np.uint8)."
        advice = advice if array.dtype.kind == "f" else ""
        raise ValueError(f"images are uint8 from 0 to 255, not {array.dtype}.{advice}")
    if array.ndim in (2, 3) and array.shape[-1] != 3:
        array = array[..., None].repeat(3, axis=-1)
    array = array[None] if array.ndim == 3 else array
    if array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape:
        raise ValueError(f"images are {IMAGE_SHAPES}, not {list(np.shape(images))}.")
    return array


def _mask(
    functions: ImageToImage, hidden: Hidden, count: int, seed: int
) -> tuple[Bool[np.ndarray, "N h w"], Visible | None]:
    """(bool [N, h, w] on cells or pixels, (fewest, most) visible cells if a task knows them)."""
    if isinstance(hidden, str | Mapping):
        section: Mapping[str, Any] = {"task": hidden} if isinstance(hidden, str) else hidden
        if "task" not in section or section.keys() - {"task", "args"}:
            raise ValueError(f"A task is dict(task=..., args=dict(...)), not {dict(section)}.")
        task, args = find("task", section["task"]), dict(section.get("args", {}))
        check_args(task.mask, args, f"the task {task.name}", task.BOUNDS)
        mask = task.mask(rngs.key(seed, "api", "mask"), count, functions.grid, **args)
        return np.asarray(mask), task.visible(functions.grid, **args)
    mask, size = np.asarray(hidden), functions.image_size
    if mask.dtype != np.bool_:
        raise ValueError(f"hidden is a boolean mask, True where hidden, not {mask.dtype}.")
    if mask.shape not in ((size, size), (count, size, size)):
        raise ValueError(
            f"hidden has a value for each pixel, [{size}, {size}] or [{count}, {size}, {size}], "
            f"not {list(mask.shape)}."
        )
    return np.broadcast_to(mask, (count, size, size)), None


def _complete(
    bound: _Bound, params: Params, rng: Rng, images: Array, mask: Array
) -> UInt8[Array, "N H W 3"]:
    given = pixels.to_unit_range(images)
    made = bound.functions.reconstruct(params, given, mask, rng, bound.visible)
    return jnp.round(made * 255).astype(jnp.uint8)


def _latents(bound: _Bound, params: Params, rng: Rng, images: Array, mask: Array) -> Any:
    latents = bound.functions.encode(params, bound.corrupt(params, rng, images, mask))
    return jax.tree.map(lambda x: x.astype(jnp.float32), latents)


def _loss(
    bound: _Bound, params: Params, rng: Rng, images: Array, mask: Array
) -> Float32[Array, " N"]:
    return bound.functions.loss(params, bound.corrupt(params, rng, images, mask))


def _tokens(
    bound: _Bound, params: Params, rng: Rng, images: Array
) -> Int32[Array, "N rows columns"]:
    del rng
    return bound.functions.tokenize(params, pixels.to_unit_range(images))
