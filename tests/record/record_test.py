"""Records: they hold what was asked, done and found, and every change of them is noticed."""

import json
import shutil

import numpy as np
import pytest

from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError, Damaged
from l2l_jax.record import __main__ as command
from l2l_jax.record import content, manifest, signing, verify
from l2l_jax.record.limits import limits
from l2l_jax.record.write import write
from l2l_jax.report import page
from l2l_jax.workdir.layout import Workdir
from tests.report import runs

model_signing = pytest.importorskip("model_signing", reason="the extra [record] has it")
NAMES = ["train/Bag/0001.png", "train/Bag/0002.png", "train/Coat/0003.png"]


@pytest.fixture
def run(tmp_path):
    """The workdir of a finished run that forgot classes, with its record."""
    return made(tmp_path / "run")


def made(folder, listed=False, **more):
    runs.make(folder, **more)
    runs.change(folder, "splits/forget.json", ["keys"], NAMES)
    forget = dict(files="delete.txt" if listed else "", classes=[] if listed else ["Bag", "Coat"])
    runs.change(folder, "config.json", ["split", "forget"], forget)
    page.write(folder)
    write(folder)
    return folder


def key_pair(folder, name):
    """(private, public) PEM files."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, pem = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def text_of(folder):
    return "\n".join(
        path.read_text() for path in sorted((folder / "record").iterdir()) if path.suffix != ".html"
    )


def test_a_record_says_what_was_asked_done_and_found(run):
    request, process, findings = (
        json.loads((run / "record" / f"{name}.json").read_text())
        for name in ("request", "process", "findings")
    )
    assert request["asked_for"] == "all images of classes"
    assert request["classes"] == ["Bag", "Coat"]
    assert process["weights"] == {"original": "0" * 64, "unlearned": "1" * 64}
    assert process["phases"] == {"unlearn": {"method": "l2l", "solver": "weighted", "steps": 4}}
    assert findings["tasks"]["center"]["unlearned"]["forget"]["psnr"] == 9.0
    card = (run / "record" / "model_card.md").read_text()
    assert "| unlearned | forget | 60.00 |" in card
    assert verify.verify(run).intact


def test_no_name_of_a_list_is_in_a_record(tmp_path):
    audits = {
        "neighbors": dict(sentence=f"{NAMES[0]} is the worst", attack=False, rows=[NAMES[1], 3.0])
    }
    results = dict(audits=audits, skipped={"forget": [NAMES[2]]})
    folder = made(tmp_path / "run", listed=True)
    for name, value in results.items():
        runs.change(folder, "results.json", [name], value)
    workdir = Workdir(folder)
    salt = content.Salt(workdir)
    found = json.dumps(content.findings(workdir, salt)) + text_of(folder)
    for name in NAMES:
        assert name not in found
        assert salt.digest(name) in found
    assert content.request(workdir, salt)["names"] == [salt.digest(name) for name in NAMES]


def test_digests_of_names_depend_on_the_workdir(tmp_path):
    a, b = (made(tmp_path / name, listed=True) for name in "ab")
    digests = [json.loads((x / "record" / "request.json").read_text())["names"] for x in (a, b)]
    assert not set(digests[0]) & set(digests[1])
    first = (a / "record" / "request.json").read_text()
    write(a)
    assert (a / "record" / "request.json").read_text() == first, "the salt is kept"


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("findings.json", '"psnr": 9.0', '"psnr": 9.5', "report.html does not show PSNR"),
        ("limits.md", "No guarantee", "A guarantee", "limits.md does not follow"),
        ("report.html", "60.00", "20.00", "report.html is damaged or was edited"),
    ],
)
def test_a_changed_file_is_found_even_with_a_new_manifest(run, name, old, new, message):
    path = run / "record" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert f"{name} is not the file" in " ".join(verify.verify(run).problems)
    manifest.write(run / "record")
    assert message in " ".join(verify.verify(run).problems)


@pytest.mark.slow
def test_a_record_is_no_longer_that_of_a_workdir_with_other_figures(run):
    cell = ["tasks", "center", "unlearned", "forget", "psnr"]
    runs.change(run, "results.json", cell, 8.0)
    assert "it has changed since" in " ".join(verify.verify(run).problems)
    assert verify.verify(write(run)).problems, "the page is still the old one"
    page.write(run)
    assert verify.verify(write(run)).intact


@pytest.mark.slow
def test_every_changed_byte_is_found_with_the_key(run, tmp_path):
    private, public = key_pair(tmp_path, "owner")
    record = run / "record"
    signing.sign(record, private)
    assert verify.verify(record, public).intact
    for path in sorted(record.iterdir()):
        content = path.read_bytes()
        for at in (0, len(content) // 3, len(content) - 2):
            changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
            path.write_bytes(changed)
            try:
                found = verify.verify(record, public).problems
            except Damaged as error:
                found = [str(error)]
            assert found, f"byte {at} of {path.name}"
        path.write_bytes(content)
    manifest.write(record)
    assert verify.verify(record, public).intact, "the same manifest as before"


def test_ten_changed_bytes_are_found_by_somebody_with_the_record_alone(
    run, tmp_path, capsys, monkeypatch
):
    """They have a copy of the folder, and the public key."""
    private, public = key_pair(tmp_path, "owner")
    command.main(["sign", str(run), "--key", str(private)])
    received = shutil.copytree(run / "record", tmp_path / "elsewhere" / "received")
    shutil.rmtree(run)
    command.main(["verify", str(received), "--key", str(public)])
    assert "signed by the owner of" in capsys.readouterr().out
    monkeypatch.chdir(received.parent)
    command.main(["verify", "received", "--key", str(public)])
    rng, paths = np.random.default_rng(0), sorted(received.iterdir())
    for _ in range(10):
        path = paths[rng.integers(len(paths))]
        content = bytearray(path.read_bytes())
        at, kept = rng.integers(len(content)), bytes(content)
        content[at] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        with pytest.raises((SystemExit, Damaged)):
            command.main(["verify", str(received), "--key", str(public)])
        path.write_bytes(kept)
    command.main(["verify", str(received), "--key", str(public)])


def test_a_new_manifest_does_not_help_without_the_key(run, tmp_path):
    private, public = key_pair(tmp_path, "owner")
    signing.sign(run / "record", private)
    (run / "record" / "request.json").write_text("{}")
    manifest.write(run / "record")
    assert "is not a signature of these files" in " ".join(verify.verify(run, public).problems)


def test_the_signature_of_another_key_or_none_is_refused(run, tmp_path):
    private, public = key_pair(tmp_path, "owner")
    _, other = key_pair(tmp_path, "other")
    assert "is not signed" in " ".join(verify.verify(run, public).problems)
    signing.sign(run / "record", private)
    assert "is not a signature" in " ".join(verify.verify(run, other).problems)
    with pytest.raises(ConfigError, match="holds no public key"):
        signing.check(run / "record", private)
    with pytest.raises(ConfigError, match="is no key"):
        signing.sign(run / "record", tmp_path / "missing.pem")


@pytest.fixture
def sigstore(tmp_path, monkeypatch):
    """A stand-in for Sigstore, which knows one person. Returns what signers were asked for."""
    private, public = key_pair(tmp_path, "sigstore")
    asked = []

    def signer(config, **args):
        asked.append(args)
        return config.use_elliptic_key_signer(private_key=private)

    def verifier(config, identity, oidc_issuer):
        known = (identity, oidc_issuer) == ("me@example.org", "https://login.example.org")
        _, other = key_pair(tmp_path, "nobody")
        return config.use_elliptic_key_verifier(public_key=public if known else other)

    monkeypatch.setattr(model_signing.signing.Config, "use_sigstore_signer", signer)
    monkeypatch.setattr(model_signing.verifying.Config, "use_sigstore_verifier", verifier)
    return asked


@pytest.mark.slow
def test_a_record_is_signed_without_a_key_by_who_logs_in(run, sigstore, tmp_path, capsys):
    (tmp_path / "token").write_text("a login\n")
    command.main(["sign", str(run), "--keyless", "--identity-token", str(tmp_path / "token")])
    assert sigstore == [dict(use_ambient_credentials=False, identity_token="a login")]
    command.main(["sign", str(run), "--keyless"])
    assert sigstore[1] == dict(use_ambient_credentials=True, identity_token=None)
    me = ["--identity", "me@example.org", "--issuer", "https://login.example.org"]
    command.main(["verify", str(run), *me])
    said = capsys.readouterr().out
    assert "checked: signed by me@example.org (https://login.example.org)" in said
    assert said.endswith("intact\n")
    with pytest.raises(SystemExit):
        command.main(["verify", str(run), "--identity", "you@example.org", *me[2:]])
    assert "is not a signature of these files by you@example.org" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["verify", str(run), *me[:2]])
    assert "--identity and --issuer go together" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["sign", str(run), "--key", "k", "--identity-token", str(tmp_path / "token")])
    assert "--identity-token goes with --keyless" in capsys.readouterr().err


def test_sigstore_out_of_reach_is_said(run, monkeypatch):
    def unreachable(*args, **others):
        raise OSError("no route to host")

    monkeypatch.setattr(model_signing.signing.Config, "use_sigstore_signer", unreachable)
    monkeypatch.setattr(model_signing.verifying.Config, "use_sigstore_verifier", unreachable)
    private, public = key_pair(run.parent, "owner")
    signing.sign(run / "record", private)
    with pytest.raises(ConfigError, match=r"needs a network .* no route to host"):
        signing.sign(run / "record", None)
    signing.check(run / "record", public)  # the signature of before is still there
    with pytest.raises(ConfigError, match=r"needs a network .* no route to host"):
        signing.check(run / "record", signing.Identity("me@example.org", "https://example.org"))


def test_without_a_key_the_signer_is_unknown(run, capsys):
    command.main(["verify", str(run)])
    assert capsys.readouterr().out.endswith("intact, signer unknown\n")
    (run / "record" / "model_card.md").unlink()
    with pytest.raises(SystemExit):
        command.main(["verify", str(run)])
    said = capsys.readouterr().out
    assert "WRONG: model_card.md is missing" in said
    assert said.endswith("NOT intact\n")


@pytest.mark.slow
def test_other_weights_than_the_recorded_ones(run, tmp_path):
    from l2l_jax.weights import safetensors

    path = tmp_path / "w.safetensors"
    params = {"encoder": {"kernel": np.ones((2, 2), np.float32)}}
    safetensors.save(path, params, {"model": "mae", "args": {}})
    digest = safetensors.load(path).digest
    assert "has the digest" in " ".join(verify.verify(run, weights=path).problems)
    weights = {"original": "0" * 64, "unlearned": digest}
    runs.change(run, "results.json", ["digests", "weights"], weights)
    page.write(run)
    write(run)
    assert verify.verify(run, weights=path).intact


def test_limits_name_what_was_not_tried():
    cells = {"original": {}, "unlearned": {}}
    findings = dict(tasks={"center": cells}, task="center", unclean={}, counts={"forget": 40})
    audits = {"probe": {"skipped": "this model has no blocks."}}
    said = limits(findings | dict(audits=audits))
    assert "No guarantee" in said
    assert "The audit probe did not run: this model has no blocks." in said
    assert "There was no model that never saw the images" in said
    assert "compliant" not in said
    price = dict(kind="none", center="a start", distance=2.0, epsilon=8.0, delta=1e-5, sigma=2.4)
    said = limits(findings | dict(audits={}, certificate=price))
    assert "No guarantee" in said
    assert "noise of at least sigma = 2.4 to each parameter" in said
    exact = dict(kind="exact", part="the head", assumptions=["no copies"], whole=True, body=[])
    said = limits(findings | dict(audits={}, certificate=exact))
    assert "No guarantee" not in said
    assert "rests on this, which is not checked: no copies" in said
    said = limits(findings | dict(audits={}, certificate=exact | dict(whole=False, body=["why"])))
    assert "No guarantee for the whole model" in said


def test_a_run_without_figures_has_no_record(tmp_path):
    files.write_json(tmp_path / "run" / "config.json", {})
    with pytest.raises(ConfigError, match="has no figures and page yet"):
        write(tmp_path / "run")
    with pytest.raises(ConfigError, match="holds no record"):
        verify.verify(tmp_path / "run")
