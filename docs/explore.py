# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: -widgets
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What did it forget?
#
# [![Open in Colab](images/open_in_colab.svg)](https://colab.research.google.com/github/OWNER/l2l_jax/blob/main/docs/explore.ipynb)
#
# A model that completes clothes is made to forget shoes and bags. Here you see what it forgot, paint
# on images, forget images of your own, and attack the result. The whole notebook takes a few minutes
# on two CPU cores; a GPU is not needed.

# %% [markdown]
# ## Set-up
#
# In Colab this cell gets the project and installs what is missing. It never replaces the numpy and
# jax that Colab has. Elsewhere, start Jupyter from the folder of the project.

# %%
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = "https://github.com/OWNER/l2l_jax"

if "google.colab" in sys.modules:
    if not Path("l2l_jax").exists():
        subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, "l2l_jax"], check=True)
    os.chdir("l2l_jax")
    subprocess.run([sys.executable, "launch/colab.py"], check=True)
    sys.path.insert(0, os.getcwd())
elif not Path("configs").exists() and Path("../configs").exists():
    os.chdir("..")  # Jupyter was started in docs/

# %%
import importlib.metadata
import logging
import time

import ipywidgets as widgets
import jax
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from PIL import Image

import l2l_jax
from l2l_jax import explore

SMALL = os.environ.get("L2L_NOTEBOOK") == "small"  # a quick run for tests: figures mean nothing
RUNS = Path(os.environ.get("L2L_NOTEBOOK_RUNS", "runs/explore"))
RETRAINED = "bundled:{}_fashion_mnist_retrained_0"  # models that never saw shoes and bags
BEGAN = time.perf_counter()
logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax says each time that it only reads
jax.config.update("jax_compilation_cache_dir", str(RUNS / "compiled"))  # compiles once only

try:
    device = jax.devices()[0]
except RuntimeError:  # a GPU or TPU that this JAX cannot use
    jax.config.update("jax_platforms", "cpu")
    device = jax.devices()[0]
for package in ("jax", "flax", "numpy"):
    print(package, importlib.metadata.version(package))
print("device:", device.device_kind)

# %% [markdown]
# ## The original beside its unlearned model
#
# The original is a bundled masked autoencoder that completes ten kinds of clothes. L2L makes it forget
# sandals, sneakers, bags and ankle boots. This takes about a minute. The retrained model never saw
# them: it says what forgetting should look like. Each of the ten columns is an image that no model was
# trained on.

# %%
config = l2l_jax.load_config("configs/fashion_mnist.py:short")
config.unlearn.steps = 60
if SMALL:
    config.unlearn.update(dict(steps=4, batch_size=8, tasks=("center",)))
    config.evaluate.batch_size = 40
config.split.eval_images_per_class = 4 if SMALL else 25
config.evaluate.tasks = ("center",)
config.evaluators = dict(reconstruction=dict())
config.audits = ()
config.reference = RETRAINED.format("mae")

results = l2l_jax.run(config, RUNS / "mae")
for model in ("original", "unlearned", "retrained"):
    figures = {side: round(results[model][side]["psnr"], 2) for side in ("retain", "forget")}
    print(model, "PSNR on hidden pixels, dB:", figures)

# %%
models = l2l_jax.load(RUNS / "mae")
forget, forget_titles = models.images("forget_eval", 6)
retain, retain_titles = models.images("retain_eval", 4)
images, titles = np.concatenate([forget, retain]), [*forget_titles, *retain_titles]
center = dict(task="center", args=dict(cells=4))
hidden = models.original.hidden_pixels(center, len(images))

rows = {"image": images, "what it sees": np.where(hidden[..., None], 160, images).astype(np.uint8)}
rows |= {name: model.complete(images, hidden) for name, model in models.items()}
explore.grid(rows, titles)

# %% [markdown]
# The first six columns are of forgotten classes: the original completes them, the unlearned model does
# not, and the retrained model cannot either. The last four are of classes that stay.
#
# ## Paint what is hidden
#
# Paint on the image. What you paint is hidden from the models, and their completions appear below,
# with the PSNR on the hidden pixels and the difference between original and unlearned. The buttons and
# the list hide parts without painting; the arrow keys and the space bar work too.

# %%
number = 1
painter = explore.Painter(images[number], models.original.hidden_pixels(center)[0])
below = widgets.HTML()
choose = widgets.Dropdown(
    options=[(f"{at}: {title}", at) for at, title in enumerate(titles)],
    value=number,
    description="image",
)
preset = widgets.Dropdown(
    options=["center", "outpaint", "random", "side", "random_ratio"], description="hide"
)


def complete(mask):
    below.value = explore.completions(models, images[choose.value], mask)


def change_image(change):
    painter.show(images[choose.value])
    complete(painter.hidden)


def change_mask(change):
    painter.hidden = models.original.hidden_pixels(preset.value)[0]


painter.watch(complete)
choose.observe(change_image, "value")
preset.observe(change_mask, "value")
complete(painter.hidden)
display(widgets.VBox([choose, preset, painter.widget, below]))

# %% [markdown]
# The same without widgets, for one mask:

# %%
explore.completions(models, images[number], painter.hidden)

# %% [markdown]
# ## How strongly to forget
#
# `alpha` is the weight of forgetting against keeping. Here is a smaller model, an autoencoder that each
# run trains in seconds. Every run below is stored and keeps its models. The point moves as you move the
# slider.

# %%
ALPHAS = (0.05, 0.25) if SMALL else (0.05, 0.25, 1.0)


def small_run(alpha, name, form="bundled"):
    """Trains the small autoencoder, or takes it from the first run, and makes it forget."""
    config = l2l_jax.load_config(f"configs/autoencoder_cifar10.py:{form}")
    config.unlearn.steps = 100
    for phase in config.phases if SMALL else ():
        config[phase].update(dict(steps=4, batch_size=8, tasks=("center",)))
        config.evaluate.batch_size = 40
    config.unlearn.solver_args.alpha = alpha
    config.split.eval_images_per_class = 4 if SMALL else 25
    config.evaluate.tasks = ("center",)
    config.evaluators = dict(reconstruction=dict())
    config.reference = RETRAINED.format("autoencoder")
    if (RUNS / f"alpha_{ALPHAS[0]}").exists() and name != f"alpha_{ALPHAS[0]}":
        config.runtime.begin_from = str(RUNS / f"alpha_{ALPHAS[0]}")  # the same original
    return l2l_jax.run(config, RUNS / name)


by_alpha = {alpha: small_run(alpha, f"alpha_{alpha}") for alpha in ALPHAS}
small = {alpha: l2l_jax.load(RUNS / f"alpha_{alpha}") for alpha in ALPHAS}


# %%
def point(model, results):
    return results[model]["retain"]["psnr"], results[model]["forget"]["psnr"]


def plot(alpha):
    any_run = by_alpha[ALPHAS[0]]
    _, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
    for model, marker in (("original", "*"), ("retrained", "P")):
        axes.scatter(*point(model, any_run), marker=marker, s=120, color="#0f172a", label=model)
    axes.plot(*zip(*[point("unlearned", r) for r in by_alpha.values()], strict=True), "o-",
              color="#94a3b8", label="unlearned")  # fmt: skip
    axes.scatter(*point("unlearned", by_alpha[alpha]), s=140, color="#ea580c", zorder=3,
                 label=f"alpha {alpha}")  # fmt: skip
    axes.set(xlabel="PSNR on images to keep, dB", ylabel="PSNR on images to forget, dB")
    axes.legend(frameon=False)
    plt.show()
    chosen = small[alpha]
    shown = {name: model.complete(images, hidden) for name, model in chosen.items()}
    display(explore.grid({"image": images} | shown, titles, side=56))


widgets.interact(plot, alpha=widgets.SelectionSlider(options=ALPHAS, value=0.25))
# %% [markdown]
# The plot for `alpha` 0.25, to be read without a slider:

# %%
plot(0.25)

# %% [markdown]
# ## Forget your own images
#
# Put your images into a folder, or upload them here: whatever their size, the central square is taken.
# With nothing uploaded, two dozen sneakers play the part of your images. Other images, which are to
# stay, are written beside them.

# %%
upload = widgets.FileUpload(accept="image/*", multiple=True, description="your images")
upload

# %%
name = "uploaded" if upload.value else "own"  # a finished run is not run again
OWN, MINE = RUNS / f"{name}_images", RUNS / f"{name}_images" / "mine"
count = 12 if SMALL else 24
for folder in (MINE, OWN / "others"):
    folder.mkdir(parents=True, exist_ok=True)
for file in upload.value:
    (MINE / Path(file["name"]).name).write_bytes(bytes(file["content"]))
if not any(MINE.iterdir()):
    sneakers, names = models.images("forget", 4 * count)
    for at, image in enumerate(sneakers[np.array(names) == "Sneaker"]):
        Image.fromarray(image).save(MINE / f"{at}.png")
others, _ = models.images("retain", 10 * count)
for at, image in enumerate(others):
    Image.fromarray(image).save(OWN / "others" / f"{at}.png")

config = l2l_jax.load_config("configs/fashion_mnist.py:short")
config.data.name, config.data.args = "folder", dict(root=str(OWN), eval_fraction=0.25)
config.split.forget.classes, config.reference = ("mine",), ""
config.split.images_per_class = config.split.eval_images_per_class = 0
config.unlearn.steps, config.unlearn.batch_size = 40, 16
if SMALL:
    config.unlearn.update(dict(steps=4, batch_size=8, tasks=("center",)))
    config.evaluate.batch_size = 40
config.evaluate.tasks, config.evaluators, config.audits = ("center",), {"reconstruction": {}}, ()
own_results = l2l_jax.run(config, RUNS / name)
own = l2l_jax.load(RUNS / name)
mine, _ = own.images("forget_eval", 6)
explore.grid({"image": mine} | {name: model.complete(mine, center) for name, model in own.items()})

# %% [markdown]
# The command line does the same: `configs/folder.py` forgets whole folders, or single images that a
# list names. Images of such a list are then not shown on any page or here, unless
# `config.report.show_forgotten` is set: nothing that somebody asked to delete is published again.
#
# ## Does it come back?
#
# An attack: train the unlearned model for a few steps on some of the forgotten images, and complete
# others. The audit `relearn` does this, also on the retrained model: what that one learns in the same
# steps is no memory. The curves grow while the attack runs.

# %%
STEPS = (0, 2, 4) if SMALL else (0, 2, 5, 10, 20, 40)
known, _ = models.images("forget", 8 if SMALL else 16)
unseen, _ = models.images("forget_eval", 8 if SMALL else 32)
before = next(explore.relearn(models.original, known, unseen, center, steps=(0,)))[1]


def draw(curves, level, name):
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for label, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), "o-", label=label)
    axes.axhline(level, color="#475569", linestyle=":", label=name)
    axes.set(xlabel="steps of the attack", ylabel="PSNR on forgotten, unseen images, dB",
             xlim=(-0.5, STEPS[-1] + 0.5))  # fmt: skip
    axes.legend(frameon=False)
    plt.close(figure)
    return figure


relearned, handle = {}, display(draw({}, before, "original"), display_id=True)
for name in ("unlearned", "retrained"):
    relearned[name] = []
    for step in explore.relearn(models[name], known, unseen, center, steps=STEPS):
        relearned[name].append(step)
        handle.update(draw(relearned, before, "original"))

# %% [markdown]
# ## Where the latents lie
#
# L2L moves the latents of forgotten images to where noise lies, and keeps all others. Here are the
# latents of forgotten and kept images, in the two directions in which those of the original vary most.

# %%
kept, _ = models.images("retain_eval", len(unseen))
latents = {}
for name in ("original", "unlearned"):
    for side, of_side in (("keep", kept), ("forget", unseen)):
        leaves = jax.tree.leaves(models[name].latents(of_side, center))
        latents[name, side] = np.concatenate([x.reshape(len(of_side), -1) for x in leaves], axis=1)
base = np.concatenate([latents["original", side] for side in ("keep", "forget")])
mean = base.mean(axis=0)
directions = np.linalg.svd(base - mean, full_matrices=False)[2][:2]

_, panels = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained", sharex=True, sharey=True)
for axes, name in zip(panels, ("original", "unlearned"), strict=True):
    for side, colour in (("keep", "#2563eb"), ("forget", "#ea580c")):
        axes.scatter(
            *((latents[name, side] - mean) @ directions.T).T, s=14, color=colour, label=side
        )
    axes.set_title(name)
panels[0].legend(frameon=False)
plt.show()

# %% [markdown]
# ## Is this forgetting?
#
# Three models under the same attack: after L2L, after L2L and `undo` (which perturbs the model and
# distills it on images to keep), and the retrained one, which never saw shoes and bags. A model that
# has forgotten learns them as slowly as the retrained one. A model that jumps up at once only hides
# what it knows.

# %%
small_run(0.25, "undo", "bundled,undo")
undone = l2l_jax.load(RUNS / "undo")
attacked = {
    "L2L": small[0.25].unlearned,
    "L2L, undo": undone.unlearned,
    "retrained": small[0.25].retrained,
}
curves = {}
for name, model in attacked.items():
    curves[name] = list(explore.relearn(model, known, unseen, center, steps=STEPS, lr=1e-3))
level = next(explore.relearn(small[0.25].original, known, unseen, center, steps=(0,)))[1]
draw(curves, level, "original, before any attack")

# %%
start = {name: curve[0][1] for name, curve in curves.items()}
gain = {name: curve[-1][1] - curve[0][1] for name, curve in curves.items()}
for name in curves:
    print(f"{name}: {start[name]:.1f} dB, after {STEPS[-1]} steps {gain[name]:+.1f} dB")

# %% [markdown]
# Such curves depend on how good a model is in general, and one attack proves little.
# [`audits.md`](audits.md) says what each audit means and what it does not prove:
#
# ```
# python -m l2l_jax.audit --workdir runs/explore/mae --only all
# ```
#
# ## On a GPU or TPU
#
# Choose another runtime in Colab (Runtime, Change runtime type) and run everything again. Nothing in
# the notebook changes. What changes is this: parameters stay float32, but the models compute in
# bfloat16, so that figures differ in the last digits; each program takes longer to compile, and then
# runs many times faster; and a batch is divided over all devices. Install JAX for them with
# `pip install -e '.[gpu]'` or `'.[tpu]'`. How fast it is here:

# %%
batch = np.repeat(images, 2 if SMALL else 25, axis=0)
models.original.complete(batch, center, batch_size=len(batch))  # compiles
start_time = time.perf_counter()
models.original.complete(batch, center, batch_size=len(batch))
rate = len(batch) / (time.perf_counter() - start_time)
print(f"{rate:,.0f} completions a second on {jax.device_count()} x {device.device_kind}")

# %%
seconds, of_cpus = time.perf_counter() - BEGAN, time.process_time()
print(f"The notebook took {seconds:.0f} s, and {of_cpus:.0f} s of CPU time on all cores together.")
