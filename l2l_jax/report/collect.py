"""A run folder as a record: everything a page says comes from these files."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from l2l_jax.lib import files
from l2l_jax.lib.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Record:
    """What a finished run left behind."""

    name: str
    config: dict[str, Any]
    versions: dict[str, Any]
    results: dict[str, Any]
    metrics: list[dict[str, Any]]
    splits: dict[str, dict[str, Any]]
    tsne: dict[str, Any] | None
    images: dict[str, bytes]  # PNG files by name, such as "center_forget"

    @property
    def variants(self) -> list[str]:
        return [v for v in ("original", "unlearned", "retrained") if v in self.results]

    @property
    def sides(self) -> list[str]:
        return list(self.results["counts"])

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def unfinished(self) -> dict[str, tuple[int, int]]:
        """{phase: (done, total)} of phases that stopped short, and not because they meant to."""
        ended, steps = self.results.get("ended") or {}, self.results.get("steps", {})
        return {p: (n, total) for p, (n, total) in steps.items() if n < total and p not in ended}


def collect(workdir: Path) -> Record:
    """Reads a workdir. ConfigError if it holds no evaluated run."""
    needed = ("config.json", "versions.json", "results.json")
    if missing := [name for name in needed if not (workdir / name).is_file()]:
        raise ConfigError(
            f"{workdir} holds no evaluated run: {', '.join(missing)} missing. Finish it with "
            "'python -m l2l_jax.main', or evaluate what it has with "
            f"'python -m l2l_jax.evaluate --workdir {workdir}'."
        )
    config, versions, results = (files.read_json(workdir / name) for name in needed)
    tsne = workdir / "tsne.json"
    return Record(
        name=workdir.name,
        config=config,
        versions=versions,
        results=results,
        metrics=list(files.read_jsonl(workdir / "metrics.jsonl")),
        splits={p.stem: files.read_json(p) for p in sorted((workdir / "splits").glob("*.json"))},
        tsne=files.read_json(tsne) if tsne.exists() else None,
        images={p.stem: p.read_bytes() for p in sorted((workdir / "images").glob("*.png"))},
    )


def collect_all(workdirs: Sequence[Path]) -> tuple[dict[Path, Record], dict[Path, str]]:
    """({workdir: run}, {argument: why it is left out}); every run has a name of its own.

    ConfigError if none of them holds an evaluated run.
    """
    found, left_out = {}, {}
    for folder in dict.fromkeys(workdirs):
        try:
            if folder.is_file():
                raise ConfigError("a file, not the folder of a run")
            if not folder.exists():
                raise ConfigError("there is no such folder")
            found[folder] = collect(folder)
        except (OSError, ValueError) as error:  # among them JSON that was damaged
            said = str(error).removeprefix(f"{folder} holds no evaluated run: ")
            left_out[folder] = said.split(". Finish it")[0]
    if not found:
        told = "".join(f"\n  {folder}: {why}" for folder, why in list(left_out.items())[:10])
        raise ConfigError(f"None of these holds an evaluated run:{told}")
    names = [folder.name for folder in found]
    for folder, run in found.items():
        if names.count(run.name) > 1:
            found[folder] = dataclasses.replace(run, name=str(folder))
    return found, left_out
