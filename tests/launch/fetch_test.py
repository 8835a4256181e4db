"""l2l_jax/weights/fetch.py against a local server: downloads, continued downloads, checks."""

import hashlib
import http.server
import re
import threading

import pytest

from l2l_jax.lib.errors import ConfigError, DataMissing, WrongWeights
from l2l_jax.weights import __main__
from l2l_jax.weights import fetch as fetch_weights
from l2l_jax.weights.published import FILES, PublishedFile
from tests.helpers import FIXTURES

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.content with ranges, unless If-Range names another version.

    server.limit cuts it off, server.ranges=False ignores ranges.
    """

    def do_GET(self):
        self.server.requested_ranges.append(self.headers.get("Range"))
        found = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        content, known = self.server.content, self.headers.get("If-Range")
        whole = not self.server.ranges or (known and known != self.server.version)
        start = int(found[1]) if found and not whole else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Type", self.server.kind)
        if self.server.version:
            self.send_header("ETag", self.server.version)
        self.end_headers()
        self.wfile.write(content[start:][: self.server.limit])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requested_ranges, server.limit, server.ranges = [], None, True
        server.content, server.version, server.kind = CONTENT, '"1"', "application/octet-stream"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def published(server, sha256=DIGEST[:8]):
    url = f"http://127.0.0.1:{server.server_port}/a"
    return PublishedFile("mae", "test", url, "MIT", "1 MB", sha256)


def test_it_fetches_checks_and_does_not_fetch_again(server, tmp_path, capsys):
    path = fetch_weights.fetch("a.pth", published(server), tmp_path / "new")
    assert path.read_bytes() == CONTENT
    fetch_weights.fetch("a.pth", published(server), tmp_path / "new")
    assert server.requested_ranges == [None]
    assert capsys.readouterr().out.count(f"{path}: SHA-256 {DIGEST}") == 2


@pytest.mark.parametrize("ranges", [True, False])
def test_what_was_cut_off_goes_on(server, tmp_path, ranges):
    server.limit = 300_000
    with pytest.raises(DataMissing, match=r"a\.pth .*again"):
        fetch_weights.fetch("a.pth", published(server), tmp_path)
    server.limit, server.ranges = None, ranges
    path = fetch_weights.fetch("a.pth", published(server), tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.requested_ranges == [None, "bytes=300000-"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_whole_part_only_gets_its_name(server, tmp_path):
    (tmp_path / "a.pth.part").write_bytes(CONTENT)
    assert fetch_weights.fetch("a.pth", published(server), tmp_path).read_bytes() == CONTENT


HTML = b"<!doctype html><title>Sign in</title>" * 100
ZIP = (FIXTURES / "torch" / "zip.pth").read_bytes()
OTHER = ZIP[:100] + b"changed" + ZIP[107:]


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_is_no_weights_file(server, tmp_path, kind):
    server.content, server.kind = HTML, kind
    with pytest.raises(WrongWeights, match=r"a\.pth: .*web page.*Nothing of it is kept.*browser"):
        fetch_weights.fetch("a.pth", published(server, ""), tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.pth").write_bytes(HTML)
    with pytest.raises(WrongWeights, match=r"Remove .*a\.pth and get the file again"):
        fetch_weights.fetch("a.pth", published(server, ""), tmp_path)


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_a_file_without_a_known_digest_must_begin_like_one(server, tmp_path, name):
    server.content = (FIXTURES / "torch" / f"{name}.pth").read_bytes()
    path = fetch_weights.fetch("a.pth", published(server, ""), tmp_path)
    assert path.read_bytes() == server.content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("version", ['"1"', ""])
def test_a_file_that_changed_is_not_glued_to_the_old_part(server, tmp_path, version):
    server.content, server.version, server.limit = ZIP, version, 300
    with pytest.raises(DataMissing, match="again"):
        fetch_weights.fetch("a.pth", published(server, ""), tmp_path)
    server.content, server.version, server.limit = OTHER + b"more", version and '"2"', None
    if not version:  # the server names no version: only the size tells
        with pytest.raises(DataMissing, match=r"has changed on the server; run this again"):
            fetch_weights.fetch("a.pth", published(server, ""), tmp_path)
    path = fetch_weights.fetch("a.pth", published(server, ""), tmp_path)
    assert path.read_bytes() == OTHER + b"more"


def test_a_part_of_unknown_origin_is_not_continued(server, tmp_path):
    server.content = ZIP
    (tmp_path / "a.pth.part").write_bytes(b"other bytes")
    assert fetch_weights.fetch("a.pth", published(server, ""), tmp_path).read_bytes() == ZIP
    assert server.requested_ranges == [None]


def test_another_file_is_not_kept(server, tmp_path):
    with pytest.raises(WrongWeights, match=f"is {DIGEST}, .* begins with 0000"):
        fetch_weights.fetch("a.pth", published(server, "0000"), tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.pth").write_bytes(b"mine")
    with pytest.raises(WrongWeights, match="Remove it first"):
        fetch_weights.fetch("a.pth", published(server), tmp_path)
    assert (tmp_path / "a.pth").read_bytes() == b"mine"


def test_without_network_it_says_where_to_put_a_copy(tmp_path):
    gone = PublishedFile("mae", "test", "http://127.0.0.1:9/a.pth", "MIT")
    with pytest.raises(DataMissing) as error:
        fetch_weights.fetch("a.pth", gone, tmp_path)
    assert "http://127.0.0.1:9/a.pth" in str(error.value)
    assert f"put it here: {tmp_path / 'a.pth'}" in str(error.value)


def test_google_drive_wants_a_browser(tmp_path):
    name = "mage-vitb-1600.pth"
    with pytest.raises(DataMissing, match=r"(?s)needs a browser.*Save it as"):
        fetch_weights.fetch(name, FILES[name], tmp_path)


def test_every_published_file_is_listed(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("L2L_WEIGHTS", str(tmp_path))
    (tmp_path / "resnet50_places365.pth.tar").touch()
    fetch_weights.main(["--to", str(tmp_path)])
    listed = capsys.readouterr().out
    __main__.main(["list"])
    weights_list = capsys.readouterr().out
    for name, published in FILES.items():
        assert name in listed
        assert published.url in listed
        assert name in weights_list
    assert " * resnet50_places365.pth.tar" in listed
    assert " * resnet50_places365.pth.tar" in weights_list
    with pytest.raises(ConfigError, match="Did you mean"):
        fetch_weights.main(["resnet50_places365.pth"])


def test_what_fails_does_not_stop_the_others(server, tmp_path, monkeypatch):
    bad = PublishedFile("mae", "", "http://127.0.0.1:9/b", "MIT")
    files = {"b.pth": bad, "a.pth": published(server)}
    monkeypatch.setattr(fetch_weights, "FILES", files)
    with pytest.raises(SystemExit, match=r"b\.pth could not be fetched"):
        fetch_weights.main(["b.pth", "a.pth", "--to", str(tmp_path)])
    assert (tmp_path / "a.pth").exists()
