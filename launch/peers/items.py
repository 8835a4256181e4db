"""What `launch/benchmark.py peers` times: each item in JAX and in PyTorch, on the same arrays."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import nn

from l2l_jax.feature_networks import clip, inception
from l2l_jax.lib import flops
from l2l_jax.lib.nnx_pure import PureModule
from l2l_jax.models import diffusion, mae, mage
from l2l_jax.models.layers import attention, noise_schedule, parallel_decoding
from l2l_jax.models.layers.denoising import spread_steps
from l2l_jax.models.layers.masked_tokens import arrange
from l2l_jax.weights.formats import _layers
from l2l_jax.weights.formats import mae as mae_format
from l2l_jax.weights.formats import mage as mage_format
from l2l_jax.weights.formats import vqgan as vqgan_format
from l2l_jax.weights.name_map import to_params
from launch.peers import convolutions, transformers

RATE = 1e-4  # learning rate of the steps
TOLERANCE = 2e-4  # of float32 outputs, relative to the largest: that of the parity tests


@dataclasses.dataclass(frozen=True)
class Item:
    """One thing that both sides do. Arrays are float32 or int32.

    ours(*arguments) and theirs(module, *tensors) return what is compared: an output, or a loss.
    """

    name: str
    images: int  # of a call
    ours: Callable[..., Any]
    arguments: tuple[Any, ...]  # parameters first
    module: nn.Module
    theirs: Callable[..., torch.Tensor]
    tensors: tuple[torch.Tensor, ...]
    trains: bool = False  # a step: forward, backward and AdamW
    fused: str = ""  # how this side computes attention

    def flops(self) -> float:
        """FLOPs of a call, counted on the program; of a step with its backward pass."""
        function = jax.value_and_grad(self.ours) if self.trains else self.ours
        return flops.count(function, *self.arguments)

    def step(self) -> tuple[Any, list[Any]]:
        """(jitted step or call, its arguments); a step returns (parameters, state, loss)."""
        if not self.trains:
            return jax.jit(self.ours), list(self.arguments)
        optimizer = optax.adamw(RATE)

        def step(params: Any, state: Any, *rest: Any) -> tuple[Any, Any, Any]:
            loss, gradient = jax.value_and_grad(self.ours)(params, *rest)
            updates, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), state, loss

        params = jax.tree.map(jnp.copy, self.arguments[0])
        program = jax.jit(step, donate_argnums=(0, 1))
        return program, [params, optimizer.init(params), *self.arguments[1:]]


def _numpy(module: nn.Module) -> dict[str, np.ndarray]:
    names: Any = getattr(module, "names", module.state_dict)
    return {name: value.numpy() for name, value in names().items()}


def _params(state: dict[str, np.ndarray], rules: Sequence[Any]) -> Any:
    return jax.tree.map(jnp.array, to_params(state, rules))


def _torch(x: Any) -> torch.Tensor:
    """An array of JAX or NumPy; images [B, H, W, 3] become [B, 3, H, W]."""
    array = np.array(x)
    array = array.transpose(0, 3, 1, 2).copy() if array.ndim == 4 else array
    return torch.from_numpy(array.astype(np.int64) if array.dtype == np.int32 else array)


def _images(batch: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).random((batch, side, side, 3), np.float32)


def _fused(head: int, dtype: str) -> str:
    chosen = attention.implementation(jnp.dtype(dtype), head, False)
    return {"cudnn": "cuDNN attention", "xla": "attention by XLA"}[chosen]


def mae_items(size: str, side: int, batch: int, dtype: str) -> list[Item]:
    """A step of pretraining with 3 of 4 patches hidden, and a completion of the same masks."""
    model = mae.build(size=size, image_size=side, dtype=dtype)
    module = transformers.MAE(model.size, side)
    params = _params(_numpy(module), mae_format.NAMES)
    length, rng = model.grid[0] ** 2, np.random.default_rng(1)
    shown = length // 4
    mask = rng.permuted(np.tile(np.arange(length) >= shown, (batch, 1)), axis=1)
    mask = jnp.asarray(mask.reshape(batch, *model.grid))
    images = jnp.asarray(_images(batch, side))
    inputs = model.corrupt(params, images, mask, jax.random.key(0), visible=(shown, shown))
    normal = _torch((images - mae.MEAN) / mae.STD)
    cut = (_torch(inputs.places), _torch(inputs.restore), _torch(inputs.hidden))
    fixed = {"positions": params.pop("positions")}

    def loss(params: Any, images: jax.Array, mask: jax.Array) -> jax.Array:
        visible, key = (shown, shown), jax.random.key(0)
        given = model.corrupt(params | fixed, images, mask, key, visible=visible)
        return jnp.mean(model.loss(params | fixed, given))

    def complete(params: Any, images: jax.Array, mask: jax.Array) -> jax.Array:
        visible, key = (shown, shown), jax.random.key(0)
        return model.reconstruct(params | fixed, images, mask, key, visible)

    def completed(module: Any, images: torch.Tensor, *cut: torch.Tensor) -> torch.Tensor:
        made, known = module(images, *cut[:2]).float(), module.patchify(images)
        whole = module.unpatchify(torch.where(cut[2][..., None], made, known), side)
        mean, std = (torch.from_numpy(x).to(whole)[:, None, None] for x in (mae.MEAN, mae.STD))
        return (whole * std + mean).clamp(0, 1)

    def lost(module: Any, *tensors: torch.Tensor) -> torch.Tensor:
        return module.loss(*tensors)

    fused = _fused(model.size.width // model.size.heads, dtype)
    shared = (params, images, mask), module
    return [
        Item(f"MAE {size}: step", batch, loss, *shared, lost, (normal, *cut), True, fused),
        Item(f"MAE {size}: completion", batch, complete, *shared, completed, (normal, *cut),
             fused=fused),
    ]  # fmt: skip


def mage_items(size: str, side: int, batch: int, tokenizer: str, dtype: str) -> list[Item]:
    """A step on tokens, the tokenizer, its decoder, and parallel decoding."""
    model = mage.build(size=size, image_size=side, tokenizer=dict(size=tokenizer), dtype=dtype,
                       tying="tied", steps=8)  # fmt: skip
    module = transformers.MAGE(model.size, model.codes, model.length)
    coder = convolutions.VQGAN(model.tokenizer.size)
    rules = mage_format.NAMES
    params, codec = _params(_numpy(module), rules), _params(_numpy(coder), vqgan_format.NAMES)
    rng, length = np.random.default_rng(1), model.length
    tokens = jnp.asarray(rng.integers(0, model.codes, (batch, length), np.int32))
    rank = jnp.asarray(rng.permuted(np.tile(np.arange(length), (batch, 1)), axis=1))
    hidden, dropped = rank < length * 3 // 4, rank < length // 2
    masked = jnp.where(hidden, model.codes + mage.MASK, tokens)
    inputs = arrange(masked, hidden, dropped, length - length // 2, True, tokens)
    given = (inputs.tokens, inputs.places, inputs.restore, inputs.hidden, inputs.target)
    images, key = jnp.asarray(_images(batch, side)), jax.random.key(0)

    def loss(params: Any, *given: Any) -> jax.Array:
        tokens, places, restore, hidden, target = given
        whole = dataclasses.replace(inputs, tokens=tokens, places=places, restore=restore,
                                    hidden=hidden, target=target)  # fmt: skip
        return jnp.mean(model.loss(params, whole))

    def decode(params: Any, tokens: jax.Array, hidden: jax.Array) -> jax.Array:
        return parallel_decoding.decode(
            tokens, hidden, functools.partial(model.predict_tokens, params), key,
            mask_id=model.codes + mage.MASK, steps=model.steps, temperature=model.temperature,
        )  # fmt: skip

    def lost(module: Any, *tensors: torch.Tensor) -> torch.Tensor:
        return module.loss(*tensors)

    def tokenized(module: Any, images: torch.Tensor) -> torch.Tensor:
        return module(images)

    fused = _fused(model.size.width // model.size.heads, dtype)
    flat = _torch(tokens), _torch(hidden)
    tokenize = model.tokenizer.tokenize
    return [
        Item(f"MAGE {size}: step", batch, loss, (params, *given), module, lost,
             tuple(map(_torch, given)), True, fused),
        Item(f"VQ-GAN {tokenizer}: tokens", batch, tokenize, (codec, images), coder, tokenized,
             (_torch(images),)),
        Item(f"MAGE {size}: decoding, 8 steps", batch, decode, (params, tokens, hidden), module,
             functools.partial(decoded, model), flat, fused=fused),
    ]  # fmt: skip


def decoded(
    model: mage.MAGE, module: Any, tokens: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    """Iterative parallel decoding (Chang et al., CVPR 2022), as parallel_decoding.decode."""
    mask_id, length = model.codes + mage.MASK, tokens.shape[1]
    places = torch.arange(length, device=tokens.device).expand(len(tokens), -1)
    ids, share = torch.where(hidden, mask_id, tokens), hidden.float().mean(1)
    for step in range(model.steps):
        done = (step + 1) / model.steps
        left = float(np.cos(np.pi / 2 * done))
        active = left < share
        if not bool(active.any()):
            continue
        opened = ids == mask_id
        probability = module(ids, places, places, opened).softmax(-1)
        drawn = torch.multinomial(probability.flatten(0, 1), 1).view_as(ids)
        drawn = torch.where(opened, drawn, ids)
        chance = probability.gather(2, drawn.clamp(max=model.codes - 1)[..., None])[..., 0]
        gumbel = -torch.log(-torch.log(torch.rand_like(chance).clamp(1e-20, 1 - 1e-7)))
        confidence = chance.log() + model.temperature * (1 - done) * gumbel
        confidence = confidence.masked_fill(~opened, float("inf"))
        keep = (opened.sum(1) - 1).clamp(max=int(length * left)).clamp(min=1)
        cut = confidence.sort(1).values.gather(1, keep[:, None] - 1)
        again = opened & (confidence <= cut) & (step < model.steps - 1)
        ids = torch.where(active[:, None], torch.where(again, mask_id, drawn), ids)
    return ids


def unet_items(size: str, side: int, batch: int, dtype: str) -> list[Item]:
    """A step of Palette's network, and DDIM with 5 steps."""
    model = diffusion.build(size=size, image_size=side, cell=side // 8, dtype=dtype, tying="tied",
                            sample_steps=5)  # fmt: skip
    module = convolutions.UNet(model.size)
    params = _params(_numpy(module), _layers.unet_names(""))
    images, key = jnp.asarray(_images(batch, side)), jax.random.key(1)
    mask = jnp.zeros((batch, *model.grid), bool).at[:, 2:6, 2:6].set(True)
    given = model.corrupt(params, images, mask, key)

    def loss(params: Any, *given: Any) -> jax.Array:
        return jnp.mean(model.loss(params, diffusion.Inputs(*given)))

    def lost(module: Any, *given: torch.Tensor) -> torch.Tensor:
        condition, noisy, hidden, gamma, epsilon = given
        squares = (module(condition, noisy, gamma) - epsilon) ** 2 * hidden
        return (squares.sum((1, 2, 3)) / (3 * hidden.sum((1, 2, 3)))).mean()

    def sample(params: Any, start: jax.Array, hidden: jax.Array) -> jax.Array:
        return model.sample(params, start, hidden, lambda t: start)

    arrays = (given.condition, given.noisy, given.hidden, given.gamma, given.epsilon)
    chosen = (given.condition, given.hidden)
    fused = _fused(model.size.head, dtype)
    return [
        Item(f"U-Net {size}: step", batch, loss, (params, *arrays), module, lost,
             tuple(map(_torch, arrays)), True, fused),
        Item(f"U-Net {size}: DDIM, 5 steps", batch, sample, (params, *chosen), module,
             functools.partial(sampled, model.sample_schedule, 5), tuple(map(_torch, chosen)),
             fused=fused),
    ]  # fmt: skip


def sampled(
    schedule: noise_schedule.Schedule,
    steps: int,
    module: Any,
    start: torch.Tensor,
    hidden: torch.Tensor,
) -> torch.Tensor:
    """DDIM without noise (Song et al. 2021), as denoising.ddim."""
    gammas = schedule.gammas[spread_steps(schedule.steps, steps)].astype(np.float32)
    y = start
    for gamma, after in zip(gammas, np.append(gammas[1:], np.float32(1)), strict=True):
        signal, noise = max(gamma**0.5, 1e-6), max((1 - gamma) ** 0.5, 1e-6)
        level = torch.full((len(y),), float(gamma), device=y.device)
        image = ((y - noise * module(start, y, level)) / signal).clamp(-1, 1)
        moved = after**0.5 * image + (1 - after) ** 0.5 * (y - signal * image) / noise
        y = torch.where(hidden, moved, start)
    return y


def judge_items(size: str, batch: int, side: int, dtype: str) -> list[Item]:
    """CLIP and Inception features of prepared images; side: of Inception's, in pixels."""
    dimensions = clip.SIZES[size]
    network = PureModule(functools.partial(clip.Network, dimensions, jnp.dtype(dtype).type))
    visual, judge = transformers.Visual(dimensions), convolutions.Inception().eval()
    official = {f"visual.{name}": value for name, value in _numpy(visual).items()}
    params = jax.tree.map(jnp.array, clip.from_torch(official, Path("peers")))
    other = PureModule(functools.partial(inception.Network, "fid", jnp.dtype(dtype).type))
    folded = jax.tree.map(jnp.array, inception.from_torch(_numpy(judge), Path("peers")))
    small, large = (jnp.asarray(_images(batch, s)) for s in (dimensions.image, side))

    def of(module: Any, images: torch.Tensor) -> torch.Tensor:
        return module(images)

    return [
        Item(f"CLIP {size}: features", batch, lambda p, x: network.bind(p)(x), (params, small),
             visual, of, (_torch(small),)),
        Item("Inception: features", batch, lambda p, x: other.bind(p)(2 * x - 1)[0],
             (folded, large), judge, lambda m, x: m(2 * x - 1), (_torch(large),)),
    ]  # fmt: skip
