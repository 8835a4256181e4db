"""Weights on the Hugging Face Hub: push with a model card, pull at a pinned revision.

A repository gets the weights (model.safetensors, with our metadata), a model card (README.md), and
the folder `record` of a run that has one. It is private unless said otherwise. What is pulled is
pinned twice: by the commit of the repository, and by our digest of the parameters, which the file
states and which may also be demanded. Needs the extra [hub]; the account is that of `hf auth login`
or of HF_TOKEN, the server that of HF_ENDPOINT.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from l2l_jax.lib import config_dicts, files
from l2l_jax.lib.errors import ConfigError, DataMissing, WrongWeights
from l2l_jax.weights import safetensors
from l2l_jax.weights.safetensors import Weights
from l2l_jax.workdir.layout import Workdir

FILE, CARD = "model.safetensors", "README.md"
INSTALL = 'The Hub needs huggingface_hub: pip install "l2l_jax[hub]".'
NAME = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")
HEAD = """---
library_name: l2l_jax
tags:
- machine-unlearning
---

"""


def push(
    weights: Weights, name: str, source: Path, public: bool = False, endpoint: str | None = None
) -> str:
    """Uploads weights and what belongs to them; returns OWNER/NAME@COMMIT.

    source: the file or workdir that the weights are from. Of a run that forgot a list of images,
    the metadata lose the digests of its splits, by which a guess of the names could be checked.
    ConfigError if the name is no OWNER/NAME, or the Hub refuses.
    """
    library = _library()
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no repository of the Hub: write OWNER/NAME.")
    workdir = Workdir(source)
    about = dict(weights.about)
    listed = workdir.config.is_file() and config_dicts.forgets_a_list(workdir.read_config())
    if listed and "source" in about:
        about["source"] = {k: v for k, v in about["source"].items() if k != "training"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        digest = safetensors.save(folder / FILE, weights.params, about)
        (folder / CARD).write_text(card(workdir, about, digest, name), encoding="utf-8")
        if workdir.record_folder.is_dir():
            shutil.copytree(workdir.record_folder, folder / workdir.record_folder.name)
        api = library.HfApi(endpoint=endpoint)
        try:
            api.create_repo(name, private=not public, exist_ok=True)
            made = api.upload_folder(
                repo_id=name, folder_path=folder, commit_message=f"Weights {digest[:16]}"
            )
        except Exception as error:  # of many types, as for a missing token or no network
            raise ConfigError(f"{name} cannot be pushed: {_first_line(error)}") from error
    return f"{name}@{made.oid}"


def pull(spec: str, target: Path, digest: str = "", endpoint: str | None = None) -> Weights:
    """Downloads the weights of OWNER/NAME@COMMIT to a .safetensors file, and returns them.

    digest: that the parameters must have, in full or its beginning; "" = only that which the file
    states. ConfigError if no commit is named, DataMissing if there is no such file, WrongWeights if
    the digest is another one; `target` is unchanged then.
    """
    library = _library()
    name, _, commit = spec.partition("@")
    if not NAME.fullmatch(name) or not COMMIT.fullmatch(commit):
        raise ConfigError(
            f"{spec!r} names no fixed version: write OWNER/NAME@COMMIT, with the 40 digits of the "
            "commit that 'push' printed. A branch such as main can change."
        )
    if target.suffix != ".safetensors":
        raise ConfigError(f"{target} should end in .safetensors.")
    with tempfile.TemporaryDirectory() as temporary:
        try:
            path = library.hf_hub_download(
                name, FILE, revision=commit, local_dir=temporary, endpoint=endpoint
            )
        except Exception as error:  # of many types
            raise DataMissing(f"{spec} has no {FILE}: {_first_line(error)}") from error
        weights = safetensors.load(Path(path))
        if not weights.about["digest"].startswith(digest):
            raise WrongWeights(
                f"{spec} holds parameters with the digest {weights.about['digest']}, not {digest}."
            )
        with files.atomic_write(target) as file, open(path, "rb") as content:
            shutil.copyfileobj(content, file)
    return weights


def card(workdir: Workdir, about: dict[str, Any], digest: str, name: str) -> str:
    """The text of README.md: the model card of the record, or that of the file alone."""
    own = workdir.record_folder / "model_card.md"
    text = own.read_text(encoding="utf-8") if own.is_file() else "\n".join(_plain(about)) + "\n"
    return (
        f"{HEAD}{text}\n## Files\n\n`{FILE}` holds the parameters with the digest `{digest}`. Get "
        f"them by\n\n    l2l-jax weights pull {name}@COMMIT {FILE} --digest {digest[:16]}\n"
    )


def _plain(about: dict[str, Any]) -> Iterator[str]:
    yield f"# Weights of a model of the kind {about['model']}"
    yield ""
    yield f"Arguments: `{about.get('args', {})}`."
    if result := about.get("source", {}).get("result"):
        yield ""
        yield f"They are {result}."


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(INSTALL) from error
    return huggingface_hub
