"""A Plan is a config with everything looked up: plug-ins, arguments, phases, tasks, networks.

`resolve` is the only place that turns names of a config into plug-ins; whatever runs later is given
the Plan's typed objects.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from l2l_jax.engine import config as config_table
from l2l_jax.engine.complete import complete_config
from l2l_jax.engine.config import is_phase
from l2l_jax.lib import optim
from l2l_jax.lib.errors import ConfigError, unknown_name
from l2l_jax.lib.signatures import check_args, keyword_defaults
from l2l_jax.registry import find, main_function
from l2l_jax.registry import names as registry_names
from l2l_jax.types import (
    Audit,
    Dataset,
    Evaluator,
    Figure,
    ImageToImage,
    Method,
    ModelFile,
    NetworkFile,
    Solver,
    Source,
    Task,
)

Args = Mapping[str, Any]
QUICK, ALL = "quick", "all"  # groups of audits


@dataclasses.dataclass(frozen=True)
class ModelPlan:
    """config.model."""

    plugin: ModelFile
    args: Args

    def build(self) -> ImageToImage:
        """The model object; ConfigError for arguments that do not go together."""
        return self.plugin.build(**self.args)


@dataclasses.dataclass(frozen=True)
class DatasetPlan:
    """config.data or config.data.proxy."""

    plugin: Dataset
    args: Args

    def load(self, part: str) -> Source:
        """One part, "train" or "eval". DataMissing says what to get."""
        return self.plugin.load(part, **self.args)


@dataclasses.dataclass(frozen=True)
class TaskPlan:
    """An entry of config.tasks."""

    name: str
    task: Task
    args: Args


@dataclasses.dataclass(frozen=True)
class PhasePlan:
    """A phase that config.phases names."""

    name: str
    method: Method
    args: Args
    solver: Solver
    solver_args: Args
    steps: int  # 0 if its method takes none, or its start is its solution; 1 if it is solved
    batch_size: int
    accumulate: int
    tasks: tuple[TaskPlan, ...]
    on: str  # "retain", "proxy" or "all"
    stop: str  # "unseen", or "": where its method says so
    teacher: str  # the phase whose end is the teacher; "" = the original
    saliency: float
    ema: float
    optimizer: Args


@dataclasses.dataclass(frozen=True)
class NetworkPlan:
    """An entry of config.networks."""

    name: str
    plugin: NetworkFile
    args: Args


@dataclasses.dataclass(frozen=True)
class EvaluatorPlan:
    """An entry of config.evaluators."""

    name: str
    evaluator: Evaluator
    args: Args

    @property
    def network(self) -> str:
        """The feature network that it reads, a key of config.networks; "" if it reads none."""
        return self.args.get("network", "")

    @property
    def figures(self) -> dict[str, Figure]:
        """{name that the evaluator yields: the figure as this run calls it}."""
        if self.name == self.evaluator.name:
            return {figure.name: figure for figure in self.evaluator.FIGURES}
        first = self.evaluator.FIGURES[0]
        variant = self.name.removeprefix(first.name).strip("_").replace("_", " ")
        return {
            figure.name: dataclasses.replace(
                figure,
                name=self.name + figure.name.removeprefix(first.name),
                title=f"{figure.title} ({variant})" if variant else figure.title,
                spread_of=self.name if figure.spread_of else "",
            )
            for figure in self.evaluator.FIGURES
        }


@dataclasses.dataclass(frozen=True)
class AuditPlan:
    """An audit that config.audits names, itself or as one of a group."""

    audit: Audit
    args: Args


@dataclasses.dataclass(frozen=True)
class Plan:
    """A checked config with its plug-ins. Only the sections that are plain values are in config."""

    config: Mapping[str, Any]  # plain nested dicts, complete with all arguments
    model: ModelPlan
    dataset: DatasetPlan
    proxy: DatasetPlan | None
    phases: Mapping[str, PhasePlan]  # in the order in which they run
    evaluate_tasks: tuple[TaskPlan, ...]
    networks: Mapping[str, NetworkPlan]
    evaluators: Mapping[str, EvaluatorPlan]
    audits: Mapping[str, AuditPlan]
    other: DatasetPlan | None  # a data set that nothing was trained on

    @property
    def seed(self) -> int:
        """The seed of all randomness."""
        return self.config["seed"]

    @property
    def references(self) -> tuple[str, ...]:
        """The workdirs and weights files that config.reference names."""
        mark = f"bundled{os.pathsep}"  # of bundled:NAME, where ":" is the separator, too
        kept = self.config["reference"].replace(mark, "bundled\0")
        names = kept.split(os.pathsep)
        return tuple(name.replace("\0", ":") for name in names if name)

    def earlier(self, phase: str) -> tuple[PhasePlan, ...]:
        """The phases before one."""
        names = list(self.phases)
        return tuple(self.phases[name] for name in names[: names.index(phase)])


def resolve(config: Mapping[str, Any]) -> Plan:
    """The Plan of a config.

    Raises ConfigError for a key that nobody reads, a value out of bounds, a name that no plug-in
    has, and an argument that a plug-in does not take.
    """
    config = complete_config(config)
    config_table.check(config)
    tasks = {name: _task(name, section) for name, section in config["tasks"].items()}
    phases = _phases(config, tasks)
    data, proxy, other = config["data"], config["data"]["proxy"], config["data"]["other"]
    names = sorted(config["networks"], key=lambda name: (name != "main", name))  # main is first
    networks = {name: _network(name, config["networks"][name]) for name in names}
    plan = Plan(
        config=config,
        model=ModelPlan(*_plugin("model", config["model"], "model.args")),
        dataset=DatasetPlan(*_plugin("dataset", data, "data.args")),
        proxy=DatasetPlan(*_plugin("dataset", proxy, "data.proxy.args")) if proxy["name"] else None,
        phases=phases,
        evaluate_tasks=_chosen_tasks("evaluate.tasks", config["evaluate"]["tasks"], tasks),
        networks=networks,
        evaluators=_evaluators(config["evaluators"], networks),
        audits=choose_audits(config["audits"], config["audit"]["args"]),
        other=DatasetPlan(*_plugin("dataset", other, "data.other.args")) if other["name"] else None,
    )
    if proxy["args"] and not proxy["name"]:
        raise ConfigError("data.proxy.args belong to no data set: set data.proxy.name.")
    first = next(iter(phases.values()))
    if not config["weights"] and not first.method.MAKES_ORIGINAL:
        raise ConfigError(
            "config.weights is empty: there is no original to unlearn. Name a file, such as "
            "--config.weights=bundled:mae_fashion_mnist, or let phases begin with a pretrain."
        )
    return plan


def _plugin(kind: str, section: Mapping[str, Any], where: str) -> tuple[Any, Args]:
    """(plug-in, arguments) of a section with a name and args; where: the config key of the args."""
    plugin = find(kind, section["name"])
    check_args(main_function(kind, plugin), section["args"], where, plugin.BOUNDS)
    return plugin, section["args"]


def _task(name: str, section: Mapping[str, Any]) -> TaskPlan:
    task = find("task", section["task"])
    check_args(task.mask, section["args"], f"tasks.{name}.args", task.BOUNDS)
    return TaskPlan(name, task, section["args"])


def _chosen_tasks(
    where: str, chosen: tuple[str, ...], tasks: Mapping[str, TaskPlan]
) -> tuple[TaskPlan, ...]:
    if not chosen:
        raise ConfigError(f"{where} is empty; choose some of {', '.join(tasks) or 'none'}.")
    for name in chosen:
        if name not in tasks:
            raise unknown_name("task", name, tasks, f"It is named in {where}.")
    return tuple(tasks[name] for name in chosen)


def _phases(config: Mapping[str, Any], tasks: Mapping[str, TaskPlan]) -> dict[str, PhasePlan]:
    """The phases that config.phases names, in that order; all others are checked as well."""
    found = {n: _phase(n, section, tasks) for n, section in config.items() if is_phase(section)}
    if not config["phases"]:
        raise ConfigError("config.phases is empty: nothing would be done.")
    for name in config["phases"]:
        if name not in found:
            raise unknown_name("phase", name, found)
        if config["phases"].count(name) > 1:
            raise ConfigError(
                f"config.phases names {name!r} twice; a phase has one place and one set of "
                "checkpoints. Give the second a section of its own."
            )
        if not found[name].tasks:
            _chosen_tasks(f"{name}.tasks", (), tasks)
    phases = {name: found[name] for name in config["phases"]}
    for name, phase in phases.items():
        _check_teacher(phase, list(phases)[: list(phases).index(name)])
    return phases


def _check_teacher(phase: PhasePlan, earlier: list[str]) -> None:
    """ConfigError unless the teacher of a phase is a phase before it, and the method reads one."""
    if not phase.teacher:
        return
    if phase.teacher not in earlier:
        advice = f'It is the teacher of {phase.name}; "" is the original.'
        raise unknown_name(f"phase before {phase.name}", phase.teacher, earlier, advice)
    if not phase.method.TEACHER:
        raise ConfigError(
            f"{phase.name}.teacher={phase.teacher}: the method {phase.method.name} compares with "
            "no teacher. Leave it empty."
        )


def _phase(name: str, section: Mapping[str, Any], tasks: Mapping[str, TaskPlan]) -> PhasePlan:
    method, solver = find("method", section["method"]), find("solver", section["solver"])
    check_args(method.objectives, section["args"], f"{name}.args", method.BOUNDS)
    check_args(solver.update, section["solver_args"], f"{name}.solver_args", solver.BOUNDS)
    optim.check(section["optimizer"], f"{name}.optimizer")
    chosen = section["tasks"]
    values = {key: section[key] for key in config_table.PHASE if key not in ("method", "solver")}
    values |= dict(tasks=_chosen_tasks(f"{name}.tasks", chosen, tasks) if chosen else ())
    if method.begin or (solver.solved and solver.solved(**section["solver_args"])):
        values["steps"] = 0
    if method.examples:
        values["steps"] = 1
    if section["on"] == "all" and method.spares_forget(**section["args"]):
        raise ConfigError(
            f"{name}.on=all: the images to forget are among all images, and {method.name} would "
            f"teach them again. Say {name}.on=retain or proxy."
        )
    return PhasePlan(name=name, method=method, solver=solver, **values)


def _network(name: str, section: Mapping[str, Any]) -> NetworkPlan:
    return NetworkPlan(name, *_plugin("feature_network", section, f"networks.{name}.args"))


def _evaluators(
    sections: Mapping[str, Mapping[str, Any]], networks: Mapping[str, NetworkPlan]
) -> dict[str, EvaluatorPlan]:
    """The evaluators in the order of the table of defaults, and then by name: that of the page."""
    found = [_evaluator(name, section, networks) for name, section in sections.items()]
    order = {name: at for at, name in enumerate(config_table.defaults()["evaluators"])}
    found.sort(key=lambda each: (order.get(each.evaluator.name, len(order)), each.name))
    return {each.name: each for each in found}


def _evaluator(
    name: str, section: Mapping[str, Any], networks: Mapping[str, NetworkPlan]
) -> EvaluatorPlan:
    args = {key: value for key, value in section.items() if key != "evaluator"}
    evaluator = find("evaluator", section.get("evaluator", name))
    check_args(evaluator.evaluate, args, f"evaluators.{name}", evaluator.BOUNDS)
    if "network" in args and args["network"] not in networks:
        raise unknown_name("network", args["network"], networks, f"evaluators.{name} asks for it.")
    if evaluator.name != name and not _is_one_figure(evaluator):
        raise ConfigError(
            f"evaluators.{name}: {evaluator.name} has more than one figure and cannot stand under "
            "another name."
        )
    return EvaluatorPlan(name, evaluator, args)


def choose_audits(chosen: tuple[str, ...], given: Mapping[str, Args]) -> dict[str, AuditPlan]:
    """The audits that config.audits names, in that order; a group stands for its members.

    given: config.audit.args. ConfigError for an unknown name or a wrong argument.
    """
    known = {name: find("audit", name) for name in registry_names("audit")}
    args: dict[str, Args] = {}
    for name in chosen:
        if name == QUICK:
            args |= {k: a.QUICK for k, a in known.items() if a.QUICK is not None}
        elif name == ALL:
            args |= {k: {} for k, a in known.items() if not a.BY_NAME_ONLY}
        elif name in known:
            args[name] = {}
        else:
            raise unknown_name("audit", name, [*known, QUICK, ALL])
    for name in given:
        if name not in known:
            raise unknown_name("audit", name, known, "It is named in audit.args.")
    found = {}
    for name, own in args.items():
        audit, own = known[name], {**own, **given.get(name, {})}
        check_args(audit.audit, own, f"audit.args.{name}", audit.BOUNDS)
        found[name] = AuditPlan(audit, keyword_defaults(audit.audit) | own)
    return found


def _is_one_figure(evaluator: Evaluator) -> bool:
    """Whether all figures are one figure and its spread, which can be called after a config key."""
    first, *others = evaluator.FIGURES or (None,)
    return first is not None and all(other.spread_of == first.name for other in others)
