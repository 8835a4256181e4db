"""Grids of pictures: each column is a button of its own, which page.js enlarges and filters."""

import base64
import html
import io
import json
from collections.abc import Iterator, Sequence

from PIL import Image

from l2l_jax.report import reference
from l2l_jax.report.collect import Record

VERBS = {"forget": "forget", "retain": "keep"}
MAX_PNG_BYTES = 24_000  # of a column: larger ones become WebP, so that a page stays below 3 MB
WEBP_QUALITY = 80
WITHHELD = (
    "The images to forget are not shown, because a list names them one by one: nothing that "
    "somebody asked to delete is published again. config.report.show_forgotten changes this."
)


def of_task(record: Record, task: str, side: str, title: str) -> Iterator[str]:
    """HTML: the grid of one task and side under a title, if the run made one that may be shown."""
    png = record.images.get(f"{task}_{side}")
    if png is not None:
        names = [reference.name(variant, record.results) for variant in record.variants]
        yield f"<h3>{html.escape(title)}</h3>"
        yield grid(png, ["image", "what it sees", *names], title, classes(record, side))


def classes(record: Record, side: str) -> list[str]:
    """The class of each column of the grids of a side; [] if the run did not record them."""
    return record.results.get("examples", {}).get(side, [])


def grid(png: bytes, labels: Sequence[str], title: str, names: Sequence[str] = ()) -> str:
    """HTML: a grid of pictures with a label for each of its rows.

    png: columns of square cells, one row for each label. names: the class of each column. A grid
    of another form is shown as one picture.
    """
    spans = "".join(f"<span>{html.escape(label)}</span>" for label in labels)
    columns = _columns(png, len(labels)) or [png]
    named = len(names) == len(columns)
    buttons = []
    for at, column in enumerate(columns):
        name = names[at] if named else f"image {at + 1}"
        alt = html.escape(f"{name}: {', '.join(labels)}")
        kind = f' data-class="{html.escape(name)}"' if named else ""
        buttons.append(
            f'<button type="button"{kind} data-name="{html.escape(name)}">'
            f'<img alt="{alt}" src="{_data_url(column)}"></button>'
        )
    rows = html.escape(json.dumps(list(labels)))
    return (
        f'<div class="card grid" data-title="{html.escape(title)}" data-rows="{rows}" '
        f'style="--columns: {len(columns)}"><div class="rows">{spans}</div>'
        f'<div class="columns">{"".join(buttons)}</div></div>'
    )


def _columns(png: bytes, rows: int) -> list[bytes]:
    """The columns of a grid as PNG files; [] if its cells are no squares."""
    with Image.open(io.BytesIO(png)) as image:
        cell, rest = divmod(image.height, rows)
        if rest or not cell or image.width % cell:
            return []
        boxes = ((x, 0, x + cell, image.height) for x in range(0, image.width, cell))
        return [_encoded(image.crop(box).convert("RGB"), "PNG", optimize=True) for box in boxes]


def _data_url(png: bytes) -> str:
    kind = "png"
    if len(png) > MAX_PNG_BYTES:
        with Image.open(io.BytesIO(png)) as image:
            kind, png = "webp", _encoded(image.convert("RGB"), "WEBP", quality=WEBP_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(png).decode()}"


def _encoded(image: Image.Image, kind: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()
