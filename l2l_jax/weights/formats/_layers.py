"""Names of layers that several official formats share."""

from l2l_jax.weights.name_map import Convert, Rule, convolution, linear, norm


def vit_blocks(torch: str, ours: str) -> list[Rule]:
    """Official and own names of a stack of blocks (timm's layout)."""
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    pairs = [(f"{torch}.{{i}}.{x}", f"{ours}/{{i}}/{x.replace('.', '/')}") for x in layers]
    rules = [rule for pair in pairs for rule in linear(*pair)]
    for x in ("norm1", "norm2"):
        rules += norm(f"{torch}.{{i}}.{x}", f"{ours}/{{i}}/{x}")
    return rules


_pointwise = Convert(  # a convolution over one axis, [out, in, 1] <-> [in, out]
    lambda w: w[:, :, 0].T, lambda k: k.T[:, :, None]
)


def embedding_names(torch: str, ours: str) -> list[Rule]:
    """The two layers of an `Embedding`."""
    return linear(f"{torch}.0", f"{ours}/first") + linear(f"{torch}.2", f"{ours}/second")


def _layer_names(torch: str, ours: str) -> list[Rule]:
    return [
        *norm(f"{torch}.in_layers.0", f"{ours}/norm1"),
        *linear(f"{torch}.in_layers.2", f"{ours}/conv1", convolution),
        *linear(f"{torch}.emb_layers.1", f"{ours}/level"),
        *norm(f"{torch}.out_layers.0", f"{ours}/norm2"),
        *linear(f"{torch}.out_layers.3", f"{ours}/conv2", convolution),
        *linear(f"{torch}.skip_connection", f"{ours}/shortcut", convolution),
        *norm(f"{torch}.norm", f"{ours}/norm"),
        *linear(f"{torch}.qkv", f"{ours}/qkv", _pointwise),
        *linear(f"{torch}.proj_out", f"{ours}/proj", _pointwise),
        *linear(torch, f"{ours}/conv", convolution),
    ]


def unet_names(torch: str) -> list[Rule]:
    """Official names of the whole network, `torch` being the name of its module, with a dot."""
    return [
        *embedding_names(f"{torch}cond_embed", "encoder/embed"),
        *_layer_names(f"{torch}input_blocks.{{i}}.{{j}}", "encoder/blocks/{i}/{j}"),
        *_layer_names(f"{torch}middle_block.{{j}}", "encoder/middle/{j}"),
        *_layer_names(f"{torch}output_blocks.{{i}}.{{j}}", "decoder/blocks/{i}/{j}"),
        *norm(f"{torch}out.0", "decoder/norm_out"),
        *linear(f"{torch}out.2", "decoder/conv_out", convolution),
    ]
