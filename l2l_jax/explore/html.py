"""Images as HTML that carries its pictures inside: grids, and completions beside each other."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from l2l_jax.lib import pixels
from l2l_jax.loaded import Model

SIDE = 132  # pixels of a picture on the screen, at least; small images are enlarged
STYLE = (
    "display:inline-block;margin:0 10px 10px 0;vertical-align:top;width:{side}px;"
    "font:13px/1.35 system-ui,sans-serif"
)


class Html(str):
    """HTML that a notebook shows as such."""

    def _repr_html_(self) -> str:
        return str(self)


def data_url(image: UInt8[np.ndarray, "H W 3"]) -> str:
    """An image as the address of a PNG file that is inside the address."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def grid(
    rows: Mapping[str, UInt8[np.ndarray, "N H W 3"]], columns: Sequence[str] = (), side: int = 72
) -> Html:
    """A table with one row of images under each name. columns: a name above each column."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    lines = [f"<tr><td></td>{head}</tr>"] if columns else []
    for name, images in rows.items():
        cells = []
        for at, image in enumerate(images):
            what = columns[at] if columns else f"image {at + 1}"
            cells.append(f"<td>{_picture(image, f'{what}: {name}', side)}</td>")
        lines.append(f'<tr><th scope="row">{html.escape(name)}</th>{"".join(cells)}</tr>')
    return Html(f'<div style="overflow-x:auto"><table>{"".join(lines)}</table></div>')


def completions(
    models: Mapping[str, Model],
    image: UInt8[np.ndarray, "S S 3"],
    hidden: Bool[np.ndarray, "S S"],
    seed: int = 0,
) -> Html:
    """What each model makes of one image, with the PSNR on hidden pixels, and the difference.

    The difference is that of the completions of "original" and "unlearned", |a - b|, if both are
    there. Nothing is completed where nothing is hidden.
    """
    if not hidden.any():
        return Html("<p>Nothing is hidden yet: paint on the picture.</p>")
    made = {name: model.complete(image, hidden, seed) for name, model in models.items()}
    figures = [_figure(image, "image", "as it is")]
    for name, each in made.items():
        figures.append(_figure(each, name, f"PSNR {psnr(image, each, hidden):.1f} dB"))
    if {"original", "unlearned"} <= made.keys():
        a, b = (made[name].astype(np.int16) for name in ("original", "unlearned"))
        difference = np.abs(a - b).astype(np.uint8)
        mean = float(np.mean(difference[hidden])) / 255
        figures.append(_figure(difference, "difference", f"{mean:.1%} on average"))
    return Html(f"<div>{''.join(figures)}</div>")


def psnr(
    image: UInt8[np.ndarray, "S S 3"],
    completed: UInt8[np.ndarray, "S S 3"],
    hidden: Bool[np.ndarray, "S S"],
) -> float:
    """PSNR of a completion on the hidden pixels, dB, peak value 1; at most 100."""
    difference = (completed[hidden].astype(np.float64) - image[hidden]) / 255
    return pixels.psnr(np.mean(difference**2, keepdims=True)).item()


def _figure(image: UInt8[np.ndarray, "H W 3"], name: str, note: str) -> str:
    return (
        f'<figure style="{STYLE.format(side=SIDE)}">{_picture(image, name, SIDE)}'
        f"<figcaption><b>{html.escape(name)}</b><br>{html.escape(note)}</figcaption></figure>"
    )


def _picture(image: UInt8[np.ndarray, "H W 3"], alt: str, side: int) -> str:
    style = f"width:{side}px;height:{side}px;image-rendering:pixelated;display:block;margin:0"
    return f'<img alt="{html.escape(alt)}" src="{data_url(image)}" style="{style}">'
