"""A run folder as a record: everything a page says comes from these files."""

import dataclasses
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
