"""Forget 50 scenes of Places365 from Palette, a diffusion model that in-paints; keep 50 others.

    python -m l2l_jax.main --config configs/diffusion_places365.py --workdir runs/palette
    python -m l2l_jax.main --config configs/diffusion_places365.py:random,proxy --workdir runs/proxy
    python -m l2l_jax.main --config configs/diffusion_places365.py:smoke --workdir runs/smoke

Forms, joined by commas:

    released, random     the split: the 50/50 classes of the released code (rooms against scenes
                         outdoors), or 50/50 drawn at random; released by default
    proxy                train on the 265 other classes, 200 images of each, in place of the retain
                         classes, which are then only evaluated
    ancestral            sample as released, all 2,000 steps of the schedule of training; by default
                         50 deterministic ones, which cost a fortieth
    max_loss, ...        another method than l2l, one of UNLEARNING in configs/common.py
    smoke                the same program in minutes on a CPU: made-up images in files of the true
                         form, a tiny model that is pretrained for a few steps first, networks that
                         nobody trained to judge it; its figures mean nothing

Recipe. The third model of paper A, with the settings of its released code: 256x256 pixels, holes of
a random box and brush strokes, 96 images a step (there of both sides mixed), Adam at a constant
5e-5, no decay, no clipping, 15,600 steps (three epochs; its config says two), with proxy 2,950
steps of 64; alpha 0.25, as its class has it (its command line says 0.1). 5,000 images of each class
at most, 100 validation images of each to evaluate, a central hole of 128x128. L2L's target is the
paper's, T(n); --config.unlearn.args.target=released is that of the code: only the hole becomes
noise. The decoder keeps an embedding of the noise level of its own, so that it is truly frozen;
--config.model.args.tying=tied shares it, as released. Departures: the central square of an
image (there: squeezed to a square); bfloat16 on accelerators (there: float32; say
--config.model.args.dtype=float32); no moving average (there one is kept, with a share of random
weights in it, and not evaluated): --config.unlearn.ema=0.9999 keeps one of the right weights. With
proxy both sides have 32 images a step, each averaged by itself; there 64 are drawn from 53,000 of
the proxy and 10,000 to be forgotten (here 250,000), in one mean, and the network has dropout.

Needs: Places365 (the run says where from; launch/prepare/places365.py checks it), the weights of
Palette on Places2, 16_Network.pth (the run says where from), and

    python -m l2l_jax.weights import 16_Network.pth weights/16_Network.safetensors --model diffusion

and, for its figures, python launch/fetch_weights.py --feature-networks.

Measured: nothing yet; no machine with Places365 was at hand when this was written.
"""

from configs import common

SPLITS = ("released", "random")
FORMS = (*SPLITS, "proxy", "ddpm", "smoke", *common.UNLEARNING)
TINY = dict(size="test", image_size=32, cell=2, steps=10, beta_end=0.5, sample_steps=2)


def get_config(form: str = "") -> common.Config:
    """form: any of FORMS, joined by commas."""
    words = common.parse_form(
        form, "configs/diffusion_places365.py", FORMS, SPLITS, common.UNLEARNING
    )
    proxy = "proxy" in words
    config = common.base()
    sampling = dict(sampler="ddim", sample_steps=50)
    if "ddpm" in words:
        sampling = dict(sampler="ddpm", sample_steps=0)
    config.model = dict(name="diffusion", args=dict(size="published", image_size=256, **sampling))
    config.weights = "weights/16_Network.safetensors"
    common.use_places365(config, "random" in words, proxy)
    config.data.update(dict(crop=(), flip=False))
    config.tasks = common.section(
        freeform=dict(task="freeform", args=dict(finer=16)),  # on single pixels
        center_8=dict(task="center", args=dict(cells=8)),
    )
    config.unlearn = common.phase(
        "l2l",
        on="proxy" if proxy else "retain",
        args=dict(target="paper"),
        solver_args=dict(alpha=0.25),
        steps=2_950 if proxy else 15_600,
        batch_size=32 if proxy else 48,
        tasks=("freeform",),
        optimizer=dict(lr=5e-5, final=5e-5, warmup=0.0, b2=0.999, weight_decay=0.0),
    )
    config.evaluate.update(dict(tasks=("center_8",), batch_size=64))
    common.use_published_networks(config, scenes=True)
    common.use_method(config, common.method_of_form(words))
    if "smoke" in words:
        config.tasks.freeform.args.finer = 2
        tiny = TINY | (dict(sampler="ddpm", sample_steps=0) if "ddpm" in words else {})
        common.use_synthetic_images(config, tiny)
    return config
