"""Writes docs/config.md from the table of config keys.

python launch/config_reference.py
"""

import argparse
from pathlib import Path

from l2l_jax.engine import config

PAGE = Path(__file__).parents[1] / "docs" / "config.md"
HEAD = """# Config reference

Every key of a config, made from `l2l_jax/engine/config.py` by `python launch/config_reference.py`.
`PHASE` stands for a section that `config.phases` names, such as `unlearn` or `pretrain`; `NAME` for
a name that the config chooses. The keys of `args` and `solver_args` are the keyword-only arguments
of the plug-in that is named beside them. Durations are steps, sizes are images of one side (retain
or forget) over all devices, shares are between 0 and 1.

| key | default | type | allowed | meaning |
|---|---|---|---|---|
"""


def page() -> str:
    """The Markdown text of the page."""
    rows = []
    for key, option in config.documented():
        default = (
            str(option.default) if option.default or option.default == 0 else repr(option.default)
        )
        cells = (f"`{key}`", f"`{default}`", option.kind, option.bounds, option.meaning)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    raw = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=raw).parse_args()
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
