"""Push and pull against a small server that speaks what huggingface_hub needs of the Hub."""

import base64
import hashlib
import http.server
import json
import threading
from typing import ClassVar

import numpy as np
import pytest

from l2l_jax.lib.errors import ConfigError, DataMissing, WrongWeights
from l2l_jax.weights import __main__ as command
from l2l_jax.weights import hub, safetensors
from l2l_jax.weights.safetensors import Weights
from tests.report import runs

pytest.importorskip("huggingface_hub", reason="the extra [hub] is not installed")
PARAMS = {"encoder": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}


class Hub(http.server.BaseHTTPRequestHandler):
    """Repositories in memory: {name: {"private", "commits": {commit: {file: content}}}}."""

    repositories: ClassVar[dict] = {}

    def log_message(self, *words):
        pass

    def reply(self, value, status=200, **headers):
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, each in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), each)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.repositories[name] = {
                "private": asked.get("visibility") == "private" or asked.get("private", False),
                "commits": {},
            }
            self.reply({"url": f"http://{self.headers['Host']}/{name}"})
        elif "/preupload/" in path:
            given = json.loads(body)["files"]
            self.reply({"files": [{"path": f["path"], "uploadMode": "regular",
                                   "shouldIgnore": False} for f in given]})  # fmt: skip
        elif "/commit/" in path:
            name, found = path.removeprefix("/api/models/").partition("/commit/")[0], {}
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    value = item["value"]
                    found[value["path"]] = base64.b64decode(value["content"])
            commit = hashlib.sha1(body).hexdigest()
            self.repositories[name]["commits"][commit] = found
            url = f"http://{self.headers['Host']}/{name}/commit/{commit}"
            self.reply({"commitUrl": url, "commitOid": commit, "success": True})
        else:
            self.reply({})  # such as the check of a card's head

    def do_GET(self):
        name, _, rest = self.path.partition("?")[0].strip("/").partition("/resolve/")
        commit, _, file = rest.partition("/")
        commits = self.repositories.get(name, {"commits": {}})["commits"]
        content = commits.get(commit, {}).get(file)
        if content is None:
            self.reply({"error": "not found"}, 404, X_Error_Code="EntryNotFound")
            return
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        self.reply(content, ETag=etag, X_Repo_Commit=commit)

    do_HEAD = do_GET


@pytest.fixture
def endpoint(monkeypatch):
    """The address of the server, which is the Hub of this test."""
    monkeypatch.setenv("HF_TOKEN", "hf_fake")
    # Tests of the demo in the same process switch it on.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(Hub, "repositories", {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


@pytest.fixture
def weights():
    source = {"result": "last step of phase unlearn", "training": {"phases": {"x": "digests"}}}
    return Weights(PARAMS, {"model": "mae", "args": {"size": "small"}, "source": source})


def test_what_is_pushed_is_pulled(endpoint, weights, tmp_path):
    spec = hub.push(weights, "me/model", tmp_path / "w.safetensors", endpoint=endpoint)
    name, _, commit = spec.partition("@")
    assert name == "me/model"
    repository = Hub.repositories[name]
    assert repository["private"] is True
    assert set(repository["commits"][commit]) == {"README.md", "model.safetensors"}
    card = repository["commits"][commit]["README.md"].decode()
    assert card.startswith("---\nlibrary_name: l2l_jax\n")
    assert "They are last step of phase unlearn." in card
    found = hub.pull(spec, tmp_path / "pulled.safetensors", endpoint=endpoint)
    assert found.about["source"]["training"] == {"phases": {"x": "digests"}}
    assert f"`{found.about['digest']}`" in card
    again = safetensors.load(tmp_path / "pulled.safetensors")
    np.testing.assert_array_equal(again.params["encoder"]["kernel"], PARAMS["encoder"]["kernel"])
    hub.push(weights, "me/open", tmp_path, public=True, endpoint=endpoint)
    assert Hub.repositories["me/open"]["private"] is False


def test_other_parameters_are_refused(endpoint, weights, tmp_path):
    spec, target = (
        hub.push(weights, "me/model", tmp_path, endpoint=endpoint),
        tmp_path / "w.safetensors",
    )
    hub.pull(spec, target, weights.digest[:16], endpoint=endpoint)
    target.unlink()
    with pytest.raises(WrongWeights, match="not 0000"):
        hub.pull(spec, target, "0000", endpoint=endpoint)
    name, _, commit = spec.partition("@")
    stored = Hub.repositories[name]["commits"][commit]
    content = bytearray(stored["model.safetensors"])
    content[-3] ^= 1  # one bit of a parameter
    stored["model.safetensors"] = bytes(content)
    with pytest.raises(WrongWeights, match="does not match its digest"):
        hub.pull(spec, target, endpoint=endpoint)
    assert not target.exists()


@pytest.mark.parametrize("spec", ["me/model", "me/model@main", "model@" + "0" * 40])
def test_a_version_that_can_change_is_refused(spec, tmp_path):
    with pytest.raises(ConfigError, match="names no fixed version"):
        hub.pull(spec, tmp_path / "w.safetensors")


def test_errors_are_for_people(endpoint, weights, tmp_path):
    with pytest.raises(DataMissing, match=r"me/model@0+ has no model.safetensors"):
        hub.pull("me/model@" + "0" * 40, tmp_path / "w.safetensors", endpoint=endpoint)
    with pytest.raises(ConfigError, match="write OWNER/NAME"):
        hub.push(weights, "model", tmp_path)
    with pytest.raises(ConfigError, match=r"should end in \.safetensors"):
        hub.pull("me/model@" + "0" * 40, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="cannot be pushed"):
        hub.push(weights, "me/model", tmp_path, endpoint="http://127.0.0.1:1")


def test_the_record_of_a_run_is_pushed_and_the_digests_of_a_list_are_not(
    endpoint, weights, tmp_path
):
    folder = runs.make(tmp_path / "run")
    runs.change(folder, "config.json", ["split", "forget"], dict(files="delete.txt", classes=[]))
    (folder / "record").mkdir()
    (folder / "record" / "model_card.md").write_text("# The card of the record\n")
    spec = hub.push(weights, "me/model", folder, endpoint=endpoint)
    name, _, commit = spec.partition("@")
    stored = Hub.repositories[name]["commits"][commit]
    assert set(stored) == {"README.md", "model.safetensors", "record/model_card.md"}
    assert "# The card of the record" in stored["README.md"].decode()
    found = hub.pull(spec, tmp_path / "w.safetensors", endpoint=endpoint)
    assert "training" not in found.about["source"]


def test_the_commands(endpoint, weights, tmp_path, monkeypatch, capsys):
    import functools

    for name in ("push", "pull"):
        monkeypatch.setattr(hub, name, functools.partial(getattr(hub, name), endpoint=endpoint))
    path = tmp_path / "w.safetensors"
    safetensors.save(path, PARAMS, weights.about)
    command.main(["push", str(path), "me/model"])
    spec = capsys.readouterr().out.removeprefix("pushed: ").strip()
    command.main(["pull", spec, str(tmp_path / "p.safetensors"), "--digest", weights.digest])
    assert "6 parameters" in capsys.readouterr().out
