"""The recipe for what is asked: whole classes, or a list of single images.

A config has recipes by form word (configs/common.py). Without such a word a list of images gets the
recipe IMAGES, and classes get the recipe that is the config's own. A form word, or another method
by --config.PHASE.method, overrides the choice.
"""

import re
from collections.abc import Sequence
from typing import Any

from l2l_jax.lib import cli
from l2l_jax.lib.errors import ConfigError

IMAGES = "images"  # the form word of the recipe for single images
FILES = "config.split.forget.files"
OTHERS = ("classes", "random")  # selections of the forget side that a list takes the place of


def with_recipe(spec: str, config: Any, argv: Sequence[str]) -> tuple[str, Any]:
    """(the spec with the form word of the recipe, its config), for the overrides in argv.

    config: of the spec, with `recipe.name` if it has recipes; another one is returned unchanged. Of
    a list to forget, the classes that the config itself forgets are dropped.
    """
    given = dict(_override(word) for word in argv[1:])
    recipe = config.get("recipe", {})
    if not recipe.get("name"):
        return spec, config
    file, _, form = spec.partition(":")
    words = [word for word in form.split(",") if word]
    listed = given[FILES] if FILES in given else config["split"]["forget"]["files"]
    named = [key for key in given if re.fullmatch(r"config\.\w+\.method", key)]
    if recipe["name"] in words:
        reason = f"the form word {recipe['name']} names it"
    elif named:
        reason = f"the config's own, with another method by --{named[0]}"
    elif listed:
        spec = f"{file}:{','.join([*words, IMAGES])}"
        try:
            config = cli.load_config(spec)
        except ConfigError as error:
            raise ConfigError(
                f"{FILES}={listed} lists single images, and {file} has no recipe for these "
                f"({error}) Name a form word of a method to choose one yourself."
            ) from error
        reason = f"{FILES} lists single images; a form word, such as l2l, chooses another recipe"
    else:
        reason = "whole classes are to be forgotten; a form word chooses another recipe"
    config["recipe"]["reason"] = reason
    if listed:
        for key in OTHERS:
            if f"config.split.forget.{key}" not in given:
                config["split"]["forget"][key] = type(config["split"]["forget"][key])()
    return spec, config


def _override(word: str) -> tuple[str, str]:
    """(key, value) of --key=value."""
    key, _, value = word.lstrip("-").partition("=")
    return key, value
