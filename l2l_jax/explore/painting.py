"""A picture to paint on, in a notebook: what is painted is hidden from the models."""

import functools
import importlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from l2l_jax.explore.html import data_url
from l2l_jax.lib.errors import ConfigError

WIDGET = """
export default {
  render({ model, el }) {
    const changed = (text) => { model.set("hidden_text", text); model.save_changes(); };
    const { show, set } = makePainter(el, {
      image: model.get("image"), size: model.get("size"), hidden: model.get("hidden_text"), changed,
    });
    model.on("change:image", () => show(model.get("image")));
    model.on("change:hidden_text", () => set(model.get("hidden_text")));
  },
};
"""


def script() -> str:
    """The JavaScript function makePainter; see the top of paint.js."""
    return Path(__file__).with_name("paint.js").read_text(encoding="utf-8")


def text_of(hidden: Bool[np.ndarray, "S S"]) -> str:
    """A mask as paint.js holds it: a digit for each pixel, row by row, 1 = hidden."""
    return "".join("1" if each else "0" for each in hidden.ravel())


def mask_of(text: str, size: int) -> Bool[np.ndarray, "S S"]:
    """The mask [size, size], True = hidden, of a text as paint.js makes it.

    Nothing is hidden if the text is empty. ValueError if it does not have a digit for each pixel.
    """
    if not text:
        return np.zeros((size, size), bool)
    if len(text) != size * size or set(text) - {"0", "1"}:
        raise ValueError(f"a mask has {size * size} digits, 0 or 1, not {len(text)} characters.")
    return (np.frombuffer(text.encode("ascii"), np.uint8) == ord("1")).reshape(size, size)


class Painter:
    """A widget that shows an image and lets somebody paint what is hidden.

    image: uint8 [S, S, 3], as `Model.fit` returns. hidden: the mask that it begins with. Buttons
    hide the centre, one half, or nothing, and the keyboard works too. ConfigError if the package
    anywidget is not installed.

        painter = Painter(image)
        painter                        # at the end of a cell
        painter.hidden                 # bool [S, S], True = hidden
        painter.watch(lambda hidden: print(hidden.mean()))
    """

    def __init__(
        self, image: UInt8[np.ndarray, "S S 3"], hidden: Bool[np.ndarray, "S S"] | None = None
    ):
        self.size = image.shape[0]
        text = "" if hidden is None else text_of(hidden)
        self.widget = _widget()(image=data_url(image), size=self.size, hidden_text=text)

    @property
    def hidden(self) -> Bool[np.ndarray, "S S"]:
        """What is painted, True = hidden. It can be set."""
        return mask_of(self.widget.hidden_text, self.size)

    @hidden.setter
    def hidden(self, mask: Bool[np.ndarray, "S S"]) -> None:
        self.widget.hidden_text = text_of(mask)

    def show(self, image: UInt8[np.ndarray, "S S 3"]) -> None:
        """Puts another image of the same size under the paint."""
        if image.shape[:2] != (self.size, self.size):
            raise ValueError(
                f"the painter has {self.size}x{self.size} pixels, not {image.shape[:2]}"
            )
        self.widget.image = data_url(image)

    def watch(self, function: Any) -> None:
        """Calls function(mask) whenever the paint changes."""
        self.widget.observe(lambda change: function(self.hidden), names="hidden_text")

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.widget._repr_mimebundle_(**options)


@functools.cache
def _widget() -> type:
    """The class of the widget; made at its first use, so that nothing else needs anywidget."""
    try:
        anywidget = importlib.import_module("anywidget")
        traitlets = importlib.import_module("traitlets")
    except ImportError as error:
        raise ConfigError(
            "Painting in a notebook needs the package anywidget, of the extra [notebook]: "
            "pip install anywidget"
        ) from error
    fields = {
        "_esm": script() + WIDGET,
        "image": traitlets.Unicode().tag(sync=True),
        "size": traitlets.Int().tag(sync=True),
        "hidden_text": traitlets.Unicode().tag(sync=True),
    }
    return type("PaintingWidget", (anywidget.AnyWidget,), fields)
