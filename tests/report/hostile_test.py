"""A run folder may be foreign, damaged or hostile: the page is safe, or one line says why not.

`values` puts every hostile value at every place of every JSON file of a run, one at a time.
"""

import contextlib
import json
import os

import pytest

from l2l_jax.lib import files
from l2l_jax.lib.errors import UserError
from l2l_jax.report import compare, drawings, page
from l2l_jax.report.collect import collect, collect_all
from launch.drills.strings import foreign
from tests.report import planted, runs
from tests.report.runs import JSON_FILES, change, hostile, make, places, without_script

EVIL = (
    "\"'><img src=x onerror=alert(1)><svg onload=alert(2)>${x}$\\frac|`a`[b](javascript:c)\x1b[2J"
)
VALUES = (None, True, -1, 10**30, float("nan"), "x", [[]], {"x": 1})


def unsealed(content):
    """The JSON object without its digest: files of older versions and of other programs."""
    value = json.loads(content)
    value.pop(files.SEAL, None)
    return value


def replaced(path, original, key, *value):
    """Writes JSON with another value in one place, or without that place."""
    content = node = unsealed(original)
    for part in key[:-1]:
        node = node[part]
    if value:
        node[key[-1]] = value[0]
    else:
        del node[key[-1]]
    path.write_text(json.dumps(content))


@pytest.fixture
def undrawn(monkeypatch):
    """The plots of the page are left out: they take most of the time. See the test of tsne.json."""
    monkeypatch.setattr(drawings, "curves", lambda metrics, phase: "")
    monkeypatch.setattr(drawings, "scatter", lambda tsne: "")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A run with two figures."""
    monkeypatch.setattr(runs, "EVALUATORS", ("fid", "reconstruction"))
    return make(tmp_path / "run", audits=planted.audits())


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_every_value_at_every_place_gives_a_page_or_one_line(small):
    folder = small
    bad, tried = [], 0
    for name in JSON_FILES:
        original = (folder / name).read_bytes()
        for path in places(unsealed(original)):
            for value in VALUES:
                replaced(folder / name, original, path, value)
                tried += 1
                try:
                    page.page(collect(folder))
                except UserError as error:
                    if name.rsplit("/")[-1] not in str(error) or "\n" in str(error):
                        bad.append((name, path, value, str(error)))
                except Exception as error:
                    bad.append((name, path, value, repr(error)))
        (folder / name).write_bytes(original)
    assert tried > 1000
    assert not bad, f"{len(bad)} of {tried}: {bad[:5]}"


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_missing_key_is_named(small):
    folder, bad = small, []
    for name in JSON_FILES:
        original = (folder / name).read_bytes()
        for path in places(unsealed(original)):
            replaced(folder / name, original, path)
            try:
                page.page(collect(folder))
            except UserError as error:
                if not {str(path[-1]), str(path[0])} & set(str(error).replace(".", " ").split()):
                    bad.append((name, path, str(error)))
            except Exception as error:
                bad.append((name, path, repr(error)))
        (folder / name).write_bytes(original)
    assert not bad, bad[:5]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tsne.json", "metrics.jsonl"])
def test_what_cannot_be_drawn_is_left_out_or_named(tmp_path, name):
    folder = make(tmp_path / "run")
    original = (folder / name).read_bytes().splitlines()[0 if name[0] == "m" else slice(None)]
    original = original if name[0] == "m" else b"\n".join(original)
    wanted = {("retain",), ("step",), ("groups", 0, "points"), ("groups", 0, "points", 0, 1)}
    for path in wanted & set(places(unsealed(original))):
        for value in (*VALUES, 1e300, float("inf"), []):
            replaced(folder / name, original, path, value)
            with contextlib.suppress(UserError):
                assert "<svg" in page.page(collect(folder)) or name[0] == "m", (path, value)


def test_every_text_is_escaped_on_the_page_of_a_run(tmp_path):
    text = page.write(hostile(tmp_path / "a<i>&'", EVIL)).read_text()
    assert foreign(text) == []
    assert "<img src=x" not in text
    assert "\x1b" not in text
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") > 40


def test_every_text_is_escaped_where_runs_are_compared(tmp_path):
    folders = [hostile(tmp_path / name, EVIL) for name in ("a<b>", "b")]
    change(folders[1], "config.json", ["seed"], 1)
    change(folders[1], "results.json", ["digests", "weights", "original"], f"{EVIL} too")
    records, left_out = collect_all([*folders, tmp_path / "<script>c"])
    text = compare.write(records, left_out, tmp_path / "out.html").read_text()
    assert foreign(text) == []
    assert "<script" not in without_script(text)
    table = compare.markdown(list(records.values()), [])
    assert "<" not in table.replace("&lt;", "")
    assert "\x1b" not in table
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert "](" not in table.replace("\\]", "")


def test_the_policy_permits_styles_and_pictures_inside_the_page_only(tmp_path):
    text = page.write(make(tmp_path / "run")).read_text()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-"
    assert text.index("Content-Security-Policy") < text.index("<style")
    assert policy in text
    assert "unsafe-eval" not in text
    assert "<script" not in without_script(text)


def test_pictures_are_read_from_the_folder_of_the_run_only(tmp_path):
    folder, secret = make(tmp_path / "run"), tmp_path / "secret.png"
    (folder / "images" / "center_forget.png").rename(secret)
    (folder / "images" / "center_forget.png").symlink_to(secret)
    with pytest.raises(UserError, match=r"center_forget\.png is a link to a file outside of"):
        collect(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/x", "a/../../x"])
def test_records_are_read_from_the_folder_of_the_run_only(tmp_path, name):
    folder = make(tmp_path / "run")
    (tmp_path / "secret.json").write_text("{}")
    change(folder, "results.json", ["digests", "records"], {name: "0" * 64})
    with pytest.raises(UserError, match="should be the name of a file, without a folder"):
        collect(folder)


@pytest.mark.parametrize("kind", ["pipe", "text", "huge"])
def test_a_picture_is_a_png_file(tmp_path, kind):
    folder = make(tmp_path / "run")
    path = folder / "images" / "center_forget.png"
    content = path.read_bytes()
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "text":
        path.write_text("<svg onload=alert(1)>")
    else:  # 60,000 x 60,000 pixels by its header
        path.write_bytes(content[:16] + b"\0\0\xea\x60" * 2 + content[24:])
    with pytest.raises(UserError, match=r"center_forget\.png"):
        collect(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{\0", b"[" * 10**6, b"9" * 5000, b"[1]"])
def test_damaged_json_is_one_line(tmp_path, content):
    folder = make(tmp_path / "run")
    (folder / "results.json").write_bytes(content)
    with pytest.raises(UserError, match=r"results\.json") as error:
        collect(folder)
    assert "\n" not in str(error.value)


def test_long_texts_are_cut_in_drawings(tmp_path):
    """A title of 100,000 letters would take minutes to lay out, and the page would never come."""
    folder, long = make(tmp_path / "run"), "x" * 100_000
    change(folder, "results.json", ["figures", "fid", "title"], long)
    change(folder, "tsne.json", ["groups", 0, "variant"], long)
    other = make(tmp_path / "other", seed=1)
    records, _ = collect_all([folder, other])
    text = compare.compared(list(records.values()), {})
    drawn = [part.split("</svg>")[0] for part in text.split("<svg")[1:]]
    assert drawn
    assert not any("x" * 50 in each for each in drawn)
    assert "x" * 50 not in drawings.scatter(files.read_json(folder / "tsne.json"))
