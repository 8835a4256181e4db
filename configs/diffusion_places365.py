"""Forgets 50 scenes of Places365 in Palette, a diffusion model for in-painting; keeps 50 others.

    python -m l2l_jax.main --config configs/diffusion_places365.py --workdir runs/palette
    python -m l2l_jax.main --config configs/diffusion_places365.py:random,proxy --workdir runs/proxy
    python -m l2l_jax.main --config configs/diffusion_places365.py:smoke --workdir runs/smoke

Form words, joined by commas:

    released, random     the split: the 50/50 classes of the released code (forgets rooms, keeps
                         outdoor scenes), or 50/50 classes drawn at random; default: released
    proxy                train on a proxy instead of the retain classes: 200 images of each of the
                         265 other classes. The retain classes are then only evaluated
    ddpm                 DDPM sampling with all 2,000 steps of the training schedule, as in the
                         released code; default: DDIM with 50 steps, at a fortieth of the cost
    max_loss, ...        another method than l2l: one of UNLEARNING in configs/common.py
    undo                 after the method perturb the model and distill it on the retain images;
                         see rebuild in configs/common.py. Its settings are not measured here
    resist               as undo, and bounds what a simulated attack brings back
    smoke                the same code in minutes on a CPU, for tests: synthetic images in files of
                         the real format, a tiny model that is pretrained for a few steps, untrained
                         feature networks; the figures mean nothing

Recipe. The third model of paper A, with the settings of its released code:

    images      256x256 pixels; at most 5,000 training images of each class, 100 validation images
                (paper C: 500 images of each class are evaluated)
    masks       training: a random box and brush strokes. Evaluation: a central hole of 128x128
    batch       96 images (48 of each side; the released code mixes the sides)
    steps       15,600: three epochs (the released config says two); with proxy 2,950 of batch 64
    optimizer   Adam at a constant 5e-5, no weight decay, no clipping
    alpha       0.25, the default in the released class (its command line says 0.1)
    target      T(n) as in the paper; --config.unlearn.args.target=released is the target of the
                code, in which only the hole becomes noise
    tying       the decoder has its own embedding of the noise level, so that it stays frozen;
                --config.model.args.tying=tied shares it with the encoder, as in the released code

Departures from the released code:

    images      the central square of an image; there: squeezed to a square
    precision   bfloat16 on accelerators; there: float32 (--config.model.args.dtype=float32)
    EMA         none; there: one that includes random initial weights and is not evaluated.
                --config.unlearn.ema=0.9999 keeps an average that starts at the original
    proxy       each side has 32 images per step and its own mean; there: one mean over 64 images
                drawn from 53,000 proxy and 10,000 forget images (here 250,000). There the network
                also uses dropout

Needs: Places365 (an error message says where to get it; launch/prepare/places365.py checks it), the
weights of Palette on Places2, 16_Network.pth (an error message says where to get them), imported by

    python -m l2l_jax.weights import 16_Network.pth weights/16_Network.safetensors --model diffusion

and feature networks for the figures: python -m l2l_jax.weights.fetch --feature-networks.

Measured: nothing yet, because no machine had Places365.
"""

from configs import common

SPLITS = ("released", "random")
FORMS = (*SPLITS, "proxy", "ddpm", "smoke", *common.REBUILDS, *common.UNLEARNING)
SMOKE_ARGS = dict(size="test", image_size=32, cell=2, steps=10, beta_end=0.5, sample_steps=2)


def get_config(form: str = "") -> common.Config:
    """Returns the config. form: words of FORMS, joined by commas."""
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
        freeform=dict(task="freeform", args=dict(finer=16)),  # masks single pixels
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
    common.rebuild(config, words)
    if "smoke" in words:
        config.tasks.freeform.args.finer = 2
        model_args = SMOKE_ARGS | (dict(sampler="ddpm", sample_steps=0) if "ddpm" in words else {})
        common.use_synthetic_images(config, model_args)
    return config
