"""The page of the demo, made with gradio, and the server of this machine that shows it."""

import importlib
import logging
import os
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from l2l_jax.demo import runs as demo_runs
from l2l_jax.demo.runs import Run
from l2l_jax.explore import painting
from l2l_jax.explore.html import data_url
from l2l_jax.lib.errors import BrokenImage, ConfigError

log = logging.getLogger(__name__)

HOST = "127.0.0.1"  # other machines cannot reach it
MAX_UPLOAD = "64mb"
QUIET = {  # read when gradio is imported: no telemetry, no look for newer versions
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
POLICY = (  # gradio makes scripts and styles while the page runs; nothing comes from elsewhere
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'self'; form-action 'self'"
)
PAINT = """
const painter = makePainter(element, {
  image: props.image, size: props.size, hidden: "",
  changed: (text) => trigger("change", { hidden: text }),
});
watch("image", () => painter.show(props.image));
"""
CHOOSE = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-at]");
  if (button) trigger("select", { at: Number(button.dataset.at) });
});
"""
CSS = """
.l2l-chooser { display: flex; flex-wrap: wrap; gap: 4px; }
.l2l-chooser button { padding: 2px; border: 1px solid #94a3b8; border-radius: 6px; }
.l2l-chooser button:focus-visible { outline: 3px solid #2563eb; }
.l2l-chooser img { width: 48px; height: 48px; image-rendering: pixelated; display: block; }
.l2l-run { border-top: 1px solid #94a3b8; padding: 8px 0; }
"""


def gradio() -> Any:
    """The package gradio. ConfigError, with the extra to install, if it is not there."""
    os.environ.update(QUIET)
    try:
        return importlib.import_module("gradio")
    except ImportError as error:
        raise ConfigError(
            "The demo needs the package gradio, of the extra [demo]: pip install 'l2l_jax[demo]' "
            f"({error})."
        ) from error


def free_port(wanted: int) -> int:
    """The port if it is free, or any free one for 0. ConfigError if it is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"Port {wanted} cannot be used ({error}). Choose another one with --port, or any "
                "free one with --port 0."
            ) from error
        return probe.getsockname()[1]


def serve(folders: Sequence[Path], port: int, partial: bool = False) -> None:
    """Opens the runs and serves their page until Ctrl-C; logs its address."""
    ui, port = gradio(), free_port(port)
    found = demo_runs.opened(folders, partial)
    with tempfile.TemporaryDirectory(prefix="l2l_demo_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads, which go with the demo
        blocks = made(ui, found)
        launch(ui, blocks, port, wait=True)


def launch(ui: Any, blocks: Any, port: int, wait: bool) -> None:
    """Serves the page on a port of this machine; with `wait` until Ctrl-C."""
    middleware = importlib.import_module("starlette.middleware")
    log.info("open http://%s:%d in a browser; Ctrl-C ends the demo", HOST, port)
    font = ui.themes.utils.fonts.Font
    blocks.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        quiet=True,
        show_error=True,
        prevent_thread_lock=not wait,
        allowed_paths=[],
        max_file_size=MAX_UPLOAD,
        footer_links=[],
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        css=CSS,
        theme=ui.themes.Default(font=[font("system-ui"), font("sans-serif")],
                                font_mono=[font("monospace")]),
        app_kwargs={"middleware": [middleware.Middleware(_Policy)]},
    )  # fmt: skip


class _Policy:
    """Adds the Content-Security-Policy to every answer of the server."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                header = (b"content-security-policy", POLICY.encode())
                message = message | {"headers": [*message.get("headers", []), header]}
            await send(message)

        await self.app(scope, receive, with_policy)


def made(ui: Any, found: Sequence[Run]) -> Any:
    """The page: choose or upload an image, paint, compare, and read the pages of the runs."""
    examples, note = demo_runs.examples(found)
    size = max(run.size for run in found)
    first = examples[0].image if examples else np.full((size, size, 3), 128, np.uint8)

    def shown(image: np.ndarray, text: str) -> str:
        return demo_runs.compared(found, image, painting.mask_of(text, size))

    def chosen(text: str, event: Any) -> tuple[Any, ...]:
        image = examples[int(event.at)].image
        return image, ui.HTML(image=data_url(image)), shown(image, text)

    def uploaded(content: bytes, text: str) -> tuple[Any, ...]:
        try:
            image = demo_runs.decoded(content)
        except BrokenImage as error:
            raise ui.Error(str(error), print_exception=False) from error
        fitted = next(iter(found[0].models.values())).fit(image)
        return image, ui.HTML(image=data_url(fitted)), shown(image, text)

    def painted(image: np.ndarray, event: Any) -> tuple[str, str]:
        return event.hidden, shown(image, event.hidden)

    for each in (chosen, painted):  # gradio passes an event to an argument of this type
        each.__annotations__["event"] = ui.EventData
    events = dict(  # in one queue that leaves nothing out: the last paint is what is shown
        trigger_mode="multiple", concurrency_id="compare", concurrency_limit=1,
        api_visibility="private", show_progress="minimal",
    )  # fmt: skip
    with ui.Blocks(title="What did it forget?", analytics_enabled=False) as blocks:
        image, hidden = ui.State(first), ui.State("")
        ui.Markdown("# What did it forget?\nChoose an image, paint what the models may not see, "
                    "and compare what they put there.")  # fmt: skip
        with ui.Row():
            with ui.Column(scale=1, min_width=320):
                painter = ui.HTML(
                    html_template="<div></div>", js_on_load=painting.script() + PAINT,
                    image=data_url(first), size=size, elem_id="painter", apply_default_css=False,
                )  # fmt: skip
                chooser = ui.HTML(demo_runs.chooser(examples), js_on_load=CHOOSE,
                                  apply_default_css=False)  # fmt: skip
                ui.Markdown(note)
                upload = ui.UploadButton("Upload an image", type="binary")
            with ui.Column(scale=2, min_width=320):
                result = ui.HTML(shown(first, ""), elem_id="result")
        for run in found:
            with ui.Accordion(f"Figures and audits of {run.record.name}", open=False):
                ui.HTML(demo_runs.report(run))
        painter.change(painted, [image], [hidden, result], **events)
        chooser.select(chosen, [hidden], [image, painter, result], **events)
        upload.upload(uploaded, [upload, hidden], [image, painter, result], **events)
    return blocks
