"""l2l_jax: make a pretrained image-to-image model forget chosen images, and show that it has.

    l2l_jax.load_config(file)       a config, to be changed
    l2l_jax.run(config, workdir)    runs an experiment and returns its figures
    l2l_jax.load(source)            a model, or the models of a run, ready to complete images

They are imported from api.py when first used, so that `import l2l_jax` loads neither JAX nor NumPy.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Model", "Models", "__version__", "load", "load_config", "run"]

if TYPE_CHECKING:
    from l2l_jax.api import Model, Models, load, load_config, run
else:  # out of sight of type checkers, which then still report names that do not exist

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module("l2l_jax.api"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
