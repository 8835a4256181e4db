"""The frame of every page: styles, one script, and a policy that permits nothing else.

The Content-Security-Policy permits pictures inside the page and the one script with the SHA-256 of
page.js. A script that comes from elsewhere, or from a text of a run, does not run.
"""

import base64
import hashlib
import html
from pathlib import Path
from string import Template

_FOLDER = Path(__file__).parent


def document(title: str, body: str) -> str:
    """An HTML file from a title (text) and a body (HTML)."""
    template = Template((_FOLDER / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(title),
        body=body,
        style=(_FOLDER / "page.css").read_text(encoding="utf-8"),
        script=script(),
        script_hash=base64.b64encode(hashlib.sha256(script().encode()).digest()).decode(),
    )


def script() -> str:
    """The only script of a page."""
    return (_FOLDER / "page.js").read_text(encoding="utf-8")
