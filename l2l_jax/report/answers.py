"""Each image of a list to forget: found or not, copies, losses and scores before and after.

The page may be shown to others. It has salted digests in place of names; the table with names is
answers.csv of the workdir.
"""

import html
from collections.abc import Iterator, Mapping
from typing import Any

from l2l_jax.report.collect import Record
from l2l_jax.report.metrics import DASH

MAX_ROWS = 200  # images that are listed
SHOWN = 16  # characters of a digest
HEADS = (
    "image (salted digest)", "state", "exact copies", "near copies", "loss before", "loss after",
    "never-seen before", "never-seen after", "score before", "score after",
)  # fmt: skip
COUNTS = ("exact_copies", "near_copies")
LOSSES = ("loss_before", "loss_after", "unseen_before", "unseen_after")
SCORES = ("score_before", "score_after")
READING = (
    "The losses of an image stand beside the mean of never-seen images of its class. Its score is "
    "the share of these with a higher loss{relative}: 0.5 is expected of an image that the model "
    "never saw, near 1 the model remembers it, near 0 it is over-forgotten. A single score is a "
    "weak statement; one in twenty never-seen images has at least 0.95."
)
RELATIVE = ", relative to the retrained model"


def table(record: Record) -> Iterator[str]:
    """HTML: a row for each image of the list; nothing if there is no list."""
    if record.answers is None:
        return
    rows = record.answers["rows"]
    head = "".join(f'<th scope="col">{html.escape(each)}</th>' for each in HEADS)
    body = "".join(_row(row) for row in rows[:MAX_ROWS])
    more = f" {len(rows) - MAX_ROWS:,} more are in answers.csv." if rows[MAX_ROWS:] else ""
    reading = READING.format(relative=RELATIVE if record.answers["relative"] else "")
    yield "<h2>Image by image</h2>"
    yield f"<p>{html.escape(reading)}</p>"
    yield (
        f'<div class="card scroll"><table class="classes"><caption>The {len(rows):,} images of the '
        f"list, in its order.{more}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(row: Mapping[str, Any]) -> str:
    digest = html.escape(row["digest"])
    cells = [html.escape(row["state"])]
    cells += [DASH if row.get(name) is None else f"{row[name]:,}" for name in COUNTS]
    for names, digits in ((LOSSES, 4), (SCORES, 2)):
        cells += [DASH if row.get(x) is None else f"{row[x]:.{digits}f}" for x in names]
    shown = f'<th scope="row"><code title="{digest}">{digest[:SHOWN]}</code></th>'
    return f"<tr>{shown}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
