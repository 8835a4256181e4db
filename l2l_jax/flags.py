"""The command line of an experiment: a config file, a workdir, and overrides of any value.

    --config CONFIG[:FORM] --workdir FOLDER [--config.section.key=value ...]

Names are overridden first: --config.unlearn.method=finetune drops the arguments of the method that
the config chose and offers those of the new one. Every argument of every chosen file is a flag.
"""

import logging
import re
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from l2l_jax import processes, requests
from l2l_jax.engine import config as config_table
from l2l_jax.engine.complete import complete_config, plain
from l2l_jax.lib import cli, config_dicts, config_files
from l2l_jax.lib.errors import ConfigError, did_you_mean
from l2l_jax.lib.signatures import keyword_defaults
from l2l_jax.registry import find

log = logging.getLogger(__name__)

NAMED = {"name": "args", "method": "args", "solver": "solver_args", "task": "args"}

flags.DEFINE_string("workdir", None, "Where everything goes; the same one continues a run.")
for _name, _default, _, _meaning in processes.OPTIONS:
    _define: Any = flags.DEFINE_string if isinstance(_default, str) else flags.DEFINE_float
    _define(_name, _default, _meaning)


def run(main: Callable[[Any, flags.FlagValues], None]) -> None:
    """Calls main(config, flags) after parsing; our errors instead of tracebacks."""
    cli.run_with_clear_errors(_run, main)


def _run(main: Callable[[Any, flags.FlagValues], None]) -> None:
    if {"--help", "-help", "-h", "--helpfull"} & set(sys.argv[1:]):
        print(config_help(sys.argv) or help_text())
        return
    spec, argv = split([_hyphens(word) for word in sys.argv])
    argv = [with_audits(word) for word in argv]
    spec, loaded = requests.with_recipe(spec, cli.load_config(spec), argv)
    config = ml_collections.ConfigDict(with_names(loaded, argv))
    check_keys(config, argv, spec)
    if not any(re.match(r"--?workdir(=|$)", word) for word in argv):
        raise ConfigError("--workdir FOLDER is missing: where everything goes, such as runs/demo.")
    config_flags.DEFINE_config_dict("config", config, lock_config=True, sys_argv=argv)

    def started(rest: list[str]) -> None:
        cli.start_logging()  # absl has just set up its own
        if len(rest) > 1:
            raise ConfigError(f"{rest[1:]} belong to no flag; an override is --config.seed=1.")
        if unread := unused(flags.FLAGS.config, argv[1:]):
            raise ConfigError(unused_message(unread, flags.FLAGS.config))
        if name := flags.FLAGS.config.get("recipe", {}).get("name"):
            log.info("recipe %s: %s", name, flags.FLAGS.config.recipe.reason)
        main(flags.FLAGS.config, flags.FLAGS)

    app.run(lambda rest: cli.run_with_clear_errors(started, rest), argv=argv)


def _hyphens(word: str) -> str:
    """--join-timeout as absl knows it: --join_timeout."""
    flag, equals, value = word.partition("=")
    known = {f"--{processes.flag(option[0])}": f"--{option[0]}" for option in processes.OPTIONS}
    return f"{known.get(flag, flag)}{equals}{value}"


def config_help(argv: list[str]) -> str:
    """What the config that --config names does, and its form words; "" if argv names none."""
    if not any(re.match(r"--?config(=|$)", word) for word in argv):
        return ""
    path = config_files.locate(split(argv)[0].partition(":")[0])
    config_files.make_importable(path)
    module = runpy.run_path(str(path))
    text = cli.described(module.get("__doc__") or "It has no docstring.", "l2l_jax.main")
    if path.parent == config_files.bundled_folder():
        text = re.sub(r"--config configs/(\w+)\.py", r"--config \1", text)
    words = ", ".join(module.get("FORMS", ())) or "none"
    return f"{path}\n\n{text.strip()}\n\nAll form words: {words}."


def help_text() -> str:
    """The usage, the names of the configs, and every key of a config with its meaning."""
    lines = [
        f"usage: {cli.program('l2l_jax.main')} --config CONFIG[:FORM] --workdir FOLDER "
        "[--config.KEY=VALUE ...]",
        "",
        "Runs an experiment, or continues it if the workdir holds it already.",
        "",
        "  --config CONFIG[:FORM]    a config file, or a name of the list below; with --help it",
        "                            prints what the config does, and its forms",
        "  --workdir FOLDER          where everything goes; the same one continues a run",
        *(f"  --{f'{processes.flag(n)} {v}':23} {m}" for n, _, v, m in processes.OPTIONS),
        "  --config.KEY=VALUE        overrides a value of the config; every argument of every",
        "                            plug-in is a key too, such as --config.unlearn.args.noise",
        "",
        f"Configs by name, in {config_files.bundled_folder()}:",
        *(f"  {name}" for name in config_files.names()),
        "",
        "Keys (PHASE is a section that config.phases names, such as unlearn):",
    ]
    return "\n".join(lines + [_help_line(*row) for row in config_table.documented()])


def _help_line(key: str, option: config_table.Option) -> str:
    bounds = f" ({option.bounds})" if option.bounds else ""
    return f"  --config.{key}={option.default!r}\n      {option.meaning}{bounds}"


def split(argv: list[str]) -> tuple[str, list[str]]:
    """(the value of --config, all other words). ConfigError if there is none."""
    for at, word in enumerate(argv[1:], 1):
        if word in ("--config", "-config") and at + 1 < len(argv):
            return argv[at + 1], argv[:at] + argv[at + 2 :]
        if word.startswith(("--config=", "-config=")):
            return word.split("=", 1)[1], argv[:at] + argv[at + 1 :]
    known = ", ".join([*config_files.names(), *config_files.configs_in(Path("configs"))])
    raise ConfigError(f"--config is missing. It takes a file, or a name. Known: {known}.")


def with_names(config: Any, argv: list[str]) -> dict[str, Any]:
    """The completed config after the overrides of names, whose old arguments are dropped."""
    completed = complete_config(config)
    for word in argv[1:]:
        key, equals, value = word.lstrip("-").partition("=")
        path = key.split(".")
        if path[0] != "config" or path[-1] not in NAMED:
            continue
        if not equals:
            raise ConfigError(f"A name is given with '=': --{key}=NAME.")
        node = completed
        for part in path[1:-1]:
            node = node.get(part, {}) if isinstance(node, dict) else {}
        args = NAMED[path[-1]]
        if args in node and node.get(path[-1]) != value:
            if node[args]:
                log.info("--%s=%s: the %s of %s are dropped", key, value, args, node[path[-1]])
            node[path[-1]], node[args] = value, {}
    add_audit_args(completed, argv)
    return complete_config(completed)


def with_audits(word: str) -> str:
    """--config.audits=relearn,probe as the tuple that the flag takes; other words as they are."""
    key, _, value = word.partition("=")
    if key.lstrip("-") != "config.audits" or not value[:1].isalpha():
        return word
    return f"{key}={tuple(name for name in value.split(',') if name)!r}"


def add_audit_args(config: dict[str, Any], argv: Sequence[str]) -> None:
    """Gives the config the default of every argument of an audit that a word overrides.

    Others stay out of it: quick audits have other defaults than complete ones.
    """
    for word in argv[1:]:
        path = word.lstrip("-").partition("=")[0].split(".")
        if path[:3] == ["config", "audit", "args"] and len(path) == 5:
            defaults = keyword_defaults(find("audit", path[3]).audit)
            if path[4] in defaults:
                own = config["audit"]["args"].setdefault(path[3], {})
                own.setdefault(path[4], defaults[path[4]])


def check_keys(config: Any, argv: list[str], spec: str) -> None:
    """ConfigError with a suggestion if an override names a key that the config does not have."""
    known = sorted(_keys(config, ""))
    for word in argv[1:]:
        key = word.lstrip("-").partition("=")[0]
        key = key.removeprefix("no") if key.startswith("noconfig.") else key
        if key.startswith("config.") and key.removeprefix("config.") not in known:
            hint = did_you_mean(key.removeprefix("config."), known)
            raise ConfigError(f"--{key}: {spec} has no such key.{hint}")


def unused(config: Any, words: Sequence[str]) -> list[str]:
    """The overrides of phases that config.phases does not name, which nothing would read."""
    names = config_dicts.unused_phases(plain(config))
    hits = [(word, re.match(r"--?(?:no)?config\.(\w+)", word)) for word in words]
    return [word for word, hit in hits if hit and hit[1] in names]


def unused_message(unread: Sequence[str], config: Any) -> str:
    """The error message for such overrides."""
    phases = ", ".join(config["phases"])
    return f"{' '.join(unread)}: this run has no such phase. Its phases are {phases}."


def _keys(config: Any, prefix: str) -> Iterator[str]:
    for key, value in config.items():
        yield f"{prefix}{key}"
        if hasattr(value, "items"):
            yield from _keys(value, f"{prefix}{key}.")
