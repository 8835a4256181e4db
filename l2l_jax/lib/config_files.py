"""Where config files are: a path, or the name of a config that comes with the package.

The configs of the project are in configs/ of a checkout, and in l2l_jax/bundled/configs of an
installed package (setup.cfg puts them there).
"""

import sys
from pathlib import Path

from l2l_jax.lib.errors import ConfigError, did_you_mean

PACKAGE = Path(__file__).parents[1]


def bundled_folder() -> Path:
    """The folder of the configs that come with the package."""
    installed = PACKAGE / "bundled" / "configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


def configs_in(folder: Path) -> list[str]:
    """Paths of the config files in a folder, sorted."""
    texts = ((path, path.read_text(errors="replace")) for path in folder.glob("*.py"))
    configs = (path for path, text in texts if "def get_config" in text)
    return sorted(path.as_posix() for path in configs)


def names() -> list[str]:
    """Names of the configs that come with the package, sorted."""
    return [Path(path).stem for path in configs_in(bundled_folder())]


def locate(file: str) -> Path:
    """The config file for a path, or for a name such as "mae_imagenet".

    A file of that path comes first. ConfigError, with what exists, if there is neither.
    """
    path, bundled = Path(file), bundled_folder()
    if path.is_file():
        return path
    if file in names():
        return bundled / f"{file}.py"
    own = configs_in(path.parent) if path.name != file else []
    known = [*own, *(name for name in names() if bundled.resolve() != path.parent.resolve())]
    raise ConfigError(
        f"There is no config {file}.{did_you_mean(file, known) or did_you_mean(path.stem, known)} "
        f"Known: {', '.join(known)}."
    )


def make_importable(path: Path) -> None:
    """Lets a config import `configs.common`: from the folder beside it, else from the package."""
    folders = [str(folder.absolute().parent) for folder in (path.parent, bundled_folder())]
    if folders[0] not in sys.path:
        sys.path.insert(0, folders[0])
    if folders[1] not in sys.path:
        sys.path.append(folders[1])
