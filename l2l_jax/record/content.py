"""What a record says, as plain dicts made from the files of a workdir.

The names of images that a list asks to forget are replaced by salted digests: whoever holds the
salt and a name can check that it was on the list, nobody else can guess it. The salt stays in the
workdir.
"""

import hashlib
import hmac
import secrets
from collections.abc import Collection, Mapping
from typing import Any

from l2l_jax.lib import config_dicts, files
from l2l_jax.record import answers
from l2l_jax.workdir.layout import Workdir

SALT_BYTES = 32
FORGET = ("forget", "forget_eval")  # splits of the forget side
REMEDY = "Remove it only together with the folder record: digests of the record depend on it."


class Salt:
    """Digests that depend on a secret of the workdir."""

    def __init__(self, workdir: Workdir):
        """Reads the secret, and makes it if there is none."""
        path = workdir.salt
        if not path.is_file():
            files.write_json(path, {"salt": secrets.token_hex(SALT_BYTES)})
        self._key = bytes.fromhex(files.read_object(path, REMEDY)["salt"])

    def digest(self, text: str) -> str:
        """HMAC-SHA-256 of a name, hexadecimal."""
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def request(workdir: Workdir, salt: Salt) -> dict[str, Any]:
    """What was asked: {"asked_for", "data", "classes", "images", "digest", "names", "recipe"}.

    names: the salted digest of every image of a list, in the order of the names; absent for whole
    classes. digest: the salted digest of all names.
    """
    config, splits = workdir.read_config(), workdir.read_splits()
    forget, listed = splits["forget"], config_dicts.forgets_a_list(config)
    made = {
        "asked_for": "listed images" if listed else "all images of classes",
        "data": config["data"]["name"],
        "classes": [] if listed else list(config["split"]["forget"]["classes"]),
        "images": forget["count"],
        "digest": salt.digest("\n".join(forget["keys"])),
        "recipe": config.get("recipe", {"name": "", "reason": ""}),
    }
    if listed:
        made["names"] = [salt.digest(key) for key in forget["keys"]]
    return made


def process(workdir: Workdir, salt: Salt) -> dict[str, Any]:
    """What was done: code, packages, devices, config, phases, splits, weights before and after."""
    config, results = workdir.read_config(), workdir.read_results()
    listed = config_dicts.forgets_a_list(config)
    splits = {
        name: {
            "images": split["count"],
            "digest": salt.digest(split["digest"]) if listed else split["digest"],
        }
        for name, split in workdir.read_splits().items()
    }
    phases = {
        name: {"method": config[name]["method"], "solver": config[name]["solver"],
               "steps": results["steps"].get(name, [0])[0]}
        for name in config["phases"]
    }  # fmt: skip
    return {
        "launches": workdir.read_versions(),
        "code": results["digests"]["code"],
        "config": config,
        "seed": config["seed"],
        "phases": phases,
        "splits": splits,
        "weights": results["digests"]["weights"],
        "original": {k: v for k, v in workdir.read_original().items() if k != "source"},
        "references": workdir.read_reference(),
        "seconds": results["seconds"],
        "cost": results["cost"],
    }


def findings(workdir: Workdir, salt: Salt) -> dict[str, Any]:
    """What was found: all figures with their intervals, and the audits."""
    results = workdir.read_results()
    kept = ("task", "tasks", "counts", "intervals", "figures", "audits", "unclean", "ended",
            "skipped", "passes", "trained_on", "evaluated")  # fmt: skip
    found = {name: results[name] for name in kept} | {"certificate": results.get("certificate")}
    if rows := answered(workdir):
        found["answers"] = answers.summary(rows)
    if not config_dicts.forgets_a_list(workdir.read_config()):
        return found
    splits = workdir.read_splits()
    names = {key for name in FORGET if name in splits for key in splits[name]["keys"]}
    return concealed(found, names, salt)


def answered(workdir: Workdir) -> list[dict[str, Any]]:
    """The answers to the lines of a list to forget, if the run forgot one."""
    listed = config_dicts.forgets_a_list(workdir.read_config())
    return workdir.read_answers().get("rows", []) if listed else []


def concealed(value: Any, names: Collection[str], salt: Salt) -> Any:
    """The JSON value with every text that is one of the names replaced by its salted digest.

    A longer text that contains a name is left out whole.
    """
    if isinstance(value, Mapping):
        return {
            concealed(key, names, salt): concealed(each, names, salt) for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [concealed(each, names, salt) for each in value]
    if not isinstance(value, str):
        return value
    if value in names:
        return salt.digest(value)
    return "(left out: it names an image)" if any(name in value for name in names) else value
