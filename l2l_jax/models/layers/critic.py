"""A patch discriminator and its hinge losses (Isola et al., CVPR 2017; Esser et al., CVPR 2021)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from l2l_jax.models.layers.vit import Dtype
from l2l_jax.types import Array, Images, Scalar

Verdicts = Float[Array, "B h w 1"]
Kernel = Float[Array, "*shape"]


class Critic(nnx.Module):
    """[B, H, W, 3] -> [B, h, w, 1] float32: how real each patch looks.

    The side is halved `layers` times. GroupNorm replaces the published BatchNorm: it has no state
    besides parameters, and gives the same result on any number of devices.
    """

    def __init__(self, width: int, layers: int, dtype: Dtype, rngs: nnx.Rngs):
        widths = [min(width * 2**i, 8 * width) for i in range(layers + 1)]
        strides = [2] * layers + [1]
        self.convs, self.norms, inner = nnx.List([]), nnx.List([]), 3
        for outer, stride in zip(widths, strides, strict=True):
            normal = nnx.initializers.normal(0.02)
            self.convs.append(
                nnx.Conv(inner, outer, (4, 4), stride, kernel_init=normal, dtype=dtype, rngs=rngs)
            )
            self.norms.append(nnx.GroupNorm(outer, min(8, outer), dtype=dtype, rngs=rngs))
            inner = outer
        self.last = nnx.Conv(inner, 1, (4, 4), dtype=dtype, rngs=rngs)

    def __call__(self, images: Images) -> Verdicts:
        x = 2 * images - 1
        for at, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = conv(x)
            x = jax.nn.leaky_relu(norm(x) if at else x, 0.2)
        return self.last(x).astype(jnp.float32)


def hinge(real: Verdicts, decoded: Verdicts) -> Scalar:
    """The critic's loss, from its outputs for real and for decoded images."""
    return 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + decoded)))


def balance(reconstruction: Kernel, adversarial: Kernel) -> Scalar:
    """|dL_rec / dW| / |dL_gan / dW| for the last layer W, at most 1e4 (Esser et al., Eq. 7)."""
    ratio = jnp.linalg.norm(reconstruction) / (jnp.linalg.norm(adversarial) + 1e-4)
    return jax.lax.stop_gradient(jnp.clip(ratio, 0.0, 1e4))
