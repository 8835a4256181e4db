"""The page in a browser: pictures enlarged, a slider, one class, two themes, print, a phone."""

import re

import numpy as np
import pytest
from PIL import Image

from l2l_jax.lib import files
from l2l_jax.report import compare, page
from l2l_jax.report.collect import collect, collect_all
from tests import browser
from tests.report.runs import HOSTILE, change, make

CLASSES = [HOSTILE, "Bag", "Bag", "Sandal"]


def run_with_classes(folder, **more):
    """A run whose forget grid has four columns, with the PSNR of each class."""
    psnr = {
        "forget": {HOSTILE: (19.0, 9.0), "Bag": (18.0, 17.5), "Sandal": (17.0, 10.0)},
        "retain": {"Coat": (20.0, 19.9), "Shirt": (18.0, 16.0), "Dress": (21.0, 21.2)},
    }
    found = {
        side: {
            name: {"images": 10, "psnr": {"original": before, "unlearned": after}}
            for name, (before, after) in classes.items()
        }
        for side, classes in psnr.items()
    }
    make(folder, by_class={"center": found}, examples={"forget": CLASSES}, **more)
    shades = np.repeat(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16, 10, 0).repeat(10, 1)
    picture = np.repeat(shades[..., None], 3, -1)
    Image.fromarray(picture).save(folder / "images" / "center_forget.png")
    return folder


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = run_with_classes(tmp_path_factory.mktemp("pages") / "demo")
    return page.write(folder).as_uri()


@pytest.fixture
def shown(address):
    """The page in a browser; nothing may go wrong on it."""
    with browser.opened(viewport=dict(width=1200, height=900)) as context:
        found, errors = browser.page_at(context, address)
        yield found
        assert errors == []


def test_each_class_has_a_row_the_worst_first(tmp_path):
    text = page.write(run_with_classes(tmp_path / "run")).read_text()
    order = [text.index(f'<th scope="row">{name}') for name in ("Bag", "Sandal", "&lt;script")]
    assert order == sorted(order), "Bag lost 0.5 dB only"
    order = [text.index(f'<th scope="row">{name}') for name in ("Shirt", "Coat", "Dress")]
    assert order == sorted(order), "Shirt lost 2 dB"
    assert "<td>18.00</td><td>16.00</td><td>-2.00</td>" in text
    text = page.write(make(tmp_path / "older")).read_text()
    assert "Class by class" not in text, "a run of an older version"


def test_many_classes_and_missing_values(tmp_path):
    folder = run_with_classes(tmp_path / "run")
    cells = {f"c{i}": dict(images=1, psnr={"original": 9.0, "unlearned": 8.0}) for i in range(130)}
    cells["none"] = dict(images=0, psnr={"original": None})
    change(folder, "results.json", ["by_class", "center", "retain"], cells)
    text = page.write(folder).read_text()
    assert text.count('<th scope="row">c') == 100
    assert "31 more classes are not listed" in text
    assert '<th scope="row">none' not in text, "a class without a value comes last"


@pytest.mark.slow
def test_listed_images_are_not_shown_unless_the_config_says_so(tmp_path):
    folder = run_with_classes(tmp_path / "run")
    assert collect(folder).images.keys() == {"center_forget"}, "whole classes may be shown"
    change(folder, "config.json", ["split", "forget", "files"], "delete.txt")
    other = run_with_classes(tmp_path / "other", seed=1)
    change(other, "config.json", ["split", "forget", "files"], "delete.txt")
    text = page.write(folder).read_text()
    assert "data:image" not in text
    assert "config.report.show_forgotten" in text
    assert "data:image" not in compare.compared(list(collect_all([folder, other])[0].values()), {})
    change(folder, "config.json", ["report"], {"show_forgotten": True})
    text = page.write(folder).read_text()
    assert text.count("data:image") == 4
    assert "config.report.show_forgotten changes this" not in text


@pytest.mark.slow
def test_large_pictures_are_compressed_so_that_a_page_stays_small(tmp_path):
    folder = run_with_classes(tmp_path / "run")
    noise = np.random.default_rng(0).integers(0, 256, (4 * 228, 10 * 228, 3), np.uint8)
    smooth = np.array(Image.fromarray(noise[::12, ::12]).resize((2280, 912), Image.BICUBIC))
    tasks = ("center", "outpaint")
    results = files.read_json(folder / "results.json")
    results["tasks"]["outpaint"] = results["tasks"]["center"]
    results["intervals"]["outpaint"] = results["intervals"]["center"]
    files.write_json(folder / "results.json", results)
    for task in tasks:
        for side in ("forget", "retain"):
            Image.fromarray(smooth).save(folder / "images" / f"{task}_{side}.png")
    before = sum(path.stat().st_size for path in (folder / "images").glob("*.png"))
    size = page.write(folder).stat().st_size
    assert before > 3e6 > size


@pytest.mark.slow
def test_a_click_enlarges_a_picture_with_a_slider(shown):
    button = shown.get_by_role("button", name="Bag: image, what it sees, original, unlearned")
    button.first.click()
    dialog = shown.get_by_role("dialog")
    assert dialog.get_by_role("heading", name="Bag (center: images to forget)").is_visible()
    slider = dialog.get_by_role("slider")
    assert slider.get_attribute("aria-valuetext") == "50 % original, the rest unlearned"
    shade = "image => { const c = document.createElement('canvas'); c.width = c.height = 1;" \
        "const d = c.getContext('2d'), at = parseFloat(image.style.objectPosition.split(' ')[1]);" \
        "d.drawImage(image, 5, at / 100 * 30 + 5, 1, 1, 0, 0, 1, 1);" \
        "return d.getImageData(0, 0, 1, 1).data[0]; }"  # fmt: skip
    assert shown.locator("#over").evaluate(shade) == 9 * 16, "row 2, column 1: the original"
    assert shown.locator("#under").evaluate(shade) == 13 * 16, "row 3, column 1: the unlearned"
    assert shown.locator("#under").get_attribute("alt") == "Bag: unlearned"
    assert shown.locator("#rows figure").count() == 4
    box = shown.locator("#stage").bounding_box()
    shown.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 20)
    shown.mouse.down()
    shown.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20)
    shown.mouse.up()
    assert slider.input_value() == "25"
    clip = shown.locator("#over").evaluate("image => getComputedStyle(image).clipPath")
    assert clip.startswith("inset(0px calc(75%") or clip == "inset(0px 75% 0px 0px)", clip
    shown.locator("#left").select_option("image")
    assert shown.locator("#over").evaluate(shade) == 16, "row 0, column 1"


@pytest.mark.slow
def test_the_page_can_be_used_with_the_keyboard_alone(shown):
    for _ in range(20):
        shown.keyboard.press("Tab")
        if shown.evaluate("document.activeElement.dataset.name") == "Bag":
            break
    shown.keyboard.press("Enter")
    assert shown.evaluate("document.activeElement.id") == "cut", "the slider has the focus"
    shown.keyboard.press("ArrowRight")
    assert shown.locator("#cut").input_value() == "51"
    shown.get_by_role("button", name="Next image").press("Enter")
    shown.get_by_role("button", name="Next image").press("Enter")
    assert shown.locator("#viewer-title").text_content().startswith("Sandal")
    shown.get_by_role("button", name="Next image").press("Enter")
    assert shown.locator("#viewer-title").text_content().startswith(HOSTILE), "round to the first"
    shown.keyboard.press("Escape")
    assert shown.get_by_role("dialog").count() == 0
    assert shown.evaluate("document.activeElement.dataset.name") == HOSTILE


@pytest.mark.slow
def test_one_class_only(shown):
    select = shown.get_by_label("Class")
    select.select_option("Bag")
    assert shown.locator(".columns button:visible").count() == 2
    assert shown.locator("tr[data-class]:visible").count() == 1
    assert shown.locator("#shown").text_content() == "2 of 4 images"
    shown.locator(".columns button:visible").first.click()
    shown.get_by_role("button", name="Previous image").click()
    assert shown.locator("#viewer-title").text_content().startswith("Bag"), "only those shown"
    shown.keyboard.press("Escape")
    select.select_option("Coat")
    assert shown.locator(".columns button:visible").count() == 0
    select.select_option("all classes")
    assert shown.locator(".columns button:visible").count() == 4
    assert shown.locator("tr[data-class]:visible").count() == 6


def lightness(found):
    """(of the ground, of the text), 0 to 255."""
    colours = found.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    return [np.mean([int(x) for x in re.findall(r"\d+", each)[:3]]) for each in colours]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system_until_somebody_chooses(address, scheme):
    with browser.opened(color_scheme=scheme) as context:
        found, errors = browser.page_at(context, address)
        ground, ink = lightness(found)
        assert (ground > 240 and ink < 30) if scheme == "light" else (ground < 40 and ink > 200)
        other = found.get_by_role("button", name="Dark" if scheme == "light" else "Light")
        other.click()
        ground, ink = lightness(found)
        assert (ground > 240) == (scheme == "dark")
        found.emulate_media(media="print")
        assert lightness(found)[1] < 30, "print is dark on white"
        assert not found.locator("#controls").is_visible()
        assert errors == []


@pytest.mark.slow
def test_a_phone_has_no_scrollbar_across(address):
    phone = dict(viewport=dict(width=375, height=720), has_touch=True, is_mobile=True)
    with browser.opened(**phone) as context:
        found, errors = browser.page_at(context, address)
        assert found.evaluate("document.documentElement.scrollWidth") <= 375
        box = found.locator(".columns button").first.bounding_box()
        assert box["width"] >= 24, "wide enough for a finger"
        found.locator(".columns button").first.tap()
        assert found.locator("#viewer").bounding_box()["width"] <= 375
        assert errors == []


@pytest.mark.slow
def test_a_script_in_a_text_would_not_run(tmp_path):
    path = page.write(run_with_classes(tmp_path / "run"))
    text = path.read_text().replace("<main>", "<main><script>document.title = 'ran'</script>")
    path.write_text(text)
    with browser.opened() as context:
        found, errors = browser.page_at(context, path.as_uri())
        assert found.title() != "ran"
        assert any("Content Security Policy" in each for each in errors)
