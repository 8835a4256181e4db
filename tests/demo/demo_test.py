"""The demo in a browser: choose, paint, upload, compare; and what it refuses to show or do."""

import io
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from l2l_jax.demo import runs, serve
from l2l_jax.demo.__main__ import main
from l2l_jax.lib import files
from l2l_jax.lib.errors import BrokenImage, ConfigError
from tests import browser
from tests.helpers import finished_run


def copied(folder):
    """A copy of the finished run, to be changed."""
    return shutil.copytree(finished_run(), folder, symlinks=True)


def set_config(folder, change):
    """Changes config.json in place."""
    config = files.read_json(folder / "config.json")
    config.pop(files.SEAL, None)
    change(config)
    files.write_json(folder / "config.json", config)


@pytest.mark.slow
def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ConfigError, match=r"pip install 'l2l_jax\[demo\]'"):
        main([str(finished_run())])


def test_a_port_in_use_is_refused():
    with socket.socket() as taken:
        taken.bind((serve.HOST, 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"cannot be used .*--port 0"):
            serve.free_port(taken.getsockname()[1])
    assert serve.free_port(0) > 0


@pytest.mark.slow
def test_a_run_that_is_not_finished_is_refused(tmp_path):
    folder = copied(tmp_path / "run")
    with pytest.raises(ConfigError, match="holds an evaluated run"):
        runs.opened([tmp_path / "none"])
    shutil.rmtree(folder / "checkpoints" / "unlearn")
    with pytest.raises(ConfigError, match=r"is not finished: unlearn is at step 0 of 6"):
        runs.opened([folder])


def test_an_upload_must_be_an_image_of_any_size_and_mode():
    for mode, size in (("L", (50, 20)), ("RGBA", (9, 31)), ("CMYK", (64, 64)), ("1", (16, 40))):
        buffer = io.BytesIO()
        Image.new(mode, size).save(buffer, "TIFF")
        side = min(size)
        assert runs.decoded(buffer.getvalue()).shape == (side, side, 3)
    with pytest.raises(BrokenImage, match="The upload"):
        runs.decoded(b"%PDF-1.7 no image")


@pytest.mark.slow
def test_images_of_a_list_to_forget_are_no_examples(tmp_path):
    folder = copied(tmp_path / "run")
    found, _ = runs.examples(runs.opened([folder]))
    assert {each.title.split(", ")[1] for each in found} == {"to forget", "to keep"}
    set_config(folder, lambda c: c["split"]["forget"].update(files="delete.txt"))
    opened = runs.opened([folder])
    for run in opened:
        run.models.config["split"]["forget"]["files"] = "delete.txt"
    found, note = runs.examples(opened)
    assert {each.title.split(", ")[1] for each in found} == {"to keep"}
    assert "Images that somebody listed to be forgotten are not shown" in note


@pytest.mark.slow
def test_a_large_picture_and_a_small_mask_fit_every_run():
    opened = runs.opened([finished_run()])
    image = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    hidden = np.zeros((32, 32), bool)
    hidden[8:24, 8:24] = True
    assert runs.compared(opened * 2, image, hidden).count("<section") == 2


@pytest.fixture(scope="module")
def address():
    """The demo of one run, twice, on a free port."""
    ui = pytest.importorskip("gradio", reason="the extra [demo] is not installed")
    serve.gradio()
    blocks = serve.made(ui, runs.opened([finished_run()]) * 2)
    port = serve.free_port(0)
    serve.launch(ui, blocks, port, wait=False)
    yield f"http://{serve.HOST}:{port}"
    blocks.close()


def figures(page):
    return page.locator("#result figcaption").all_text_contents()


def pictures(page):
    images = page.locator("#result img")
    return images.evaluate_all("images => images.map((each) => each.src)")


def wait_until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_paint_choose_and_compare(address):
    with browser.opened(viewport=dict(width=1200, height=900)) as context:
        page, errors = browser.page_at(context, address)
        canvas = page.locator(".l2l-canvas")
        canvas.wait_for(timeout=60_000)
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 60, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + 160, box["y"] + 160, steps=5)
        page.mouse.up()
        assert 0 < int(canvas.get_attribute("data-hidden")) < 200
        wait_until(lambda: len(figures(page)) == 8)
        painted = figures(page)
        assert [each.split("PSNR")[0] for each in painted[:3]] == ["imageas it is", "original",
                                                                  "unlearned"]  # fmt: skip
        assert painted[:4] == painted[4:], "both runs are the same here"
        before = pictures(page)
        page.locator(".l2l-chooser button").nth(3).click()
        wait_until(lambda: pictures(page)[:1] not in ([], before[:1]))  # another image
        chosen = pictures(page)
        page.get_by_role("button", name="All but the centre").click()
        wait_until(lambda: pictures(page)[1:2] not in ([], chosen[1:2]))  # another completion
        assert pictures(page)[0] == chosen[0], "the image stays"
        canvas.focus()
        before = int(canvas.get_attribute("data-hidden"))
        page.keyboard.press("ArrowLeft")
        page.keyboard.press(" ")
        assert abs(int(canvas.get_attribute("data-hidden")) - before) == 4, "a cell of 2x2 pixels"
        page.get_by_role("button", name="Clear").click()
        wait_until(lambda: figures(page) == [])
        page.get_by_text("Figures and audits of").first.click()
        frame = page.frame_locator("iframe").first
        frame.get_by_role("heading", name="What a").first.wait_for(timeout=20_000)
        assert errors == []


@pytest.mark.slow
def test_a_slow_machine_ends_with_what_was_painted_last(address, monkeypatch):
    compared = runs.compared

    def slow(*arguments):
        time.sleep(0.5)
        return compared(*arguments)

    monkeypatch.setattr(runs, "compared", slow)
    with browser.opened() as context:
        page, _ = browser.page_at(context, address)
        page.locator(".l2l-canvas").wait_for(timeout=60_000)
        for name in ("Centre", "Left half"):
            page.get_by_role("button", name=name, exact=True).click()
            page.locator(".l2l-chooser button").nth(3).click()
        wait_until(lambda: len(figures(page)) == 8)
        page.get_by_role("button", name="Centre", exact=True).click()
        page.get_by_role("button", name="Clear").click()
        wait_until(lambda: figures(page) == [])


@pytest.mark.slow
def test_uploads_in_the_browser(address):
    with browser.opened() as context:
        page, errors = browser.page_at(context, address)
        page.locator(".l2l-canvas").wait_for(timeout=60_000)
        page.get_by_role("button", name="Centre", exact=True).click()
        wait_until(lambda: len(figures(page)) == 8)
        before = figures(page)
        buffer = io.BytesIO()
        Image.effect_noise((70, 40), 99).save(buffer, "PNG")
        upload = page.locator("input[type=file]").first
        upload.set_input_files(dict(name="a.png", mimeType="image/png", buffer=buffer.getvalue()))
        wait_until(lambda: figures(page) and figures(page) != before)
        upload.set_input_files(dict(name="a.png", mimeType="image/png", buffer=b"no image at all"))
        page.get_by_text("cannot identify image file").first.wait_for(timeout=20_000)
        assert [each for each in errors if "http" in each and "127.0.0.1" not in each] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/etc/passwd", "config.json", "../../etc/passwd"])
def test_no_file_of_this_machine_is_served(address, path):
    target = finished_run() / path if path == "config.json" else path
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{address}/gradio_api/file={target}")
    assert error.value.code in (403, 404)


@pytest.mark.slow
def test_the_policy_forbids_everything_from_elsewhere(address):
    with urllib.request.urlopen(address) as answer:
        policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    assert "http" not in policy
