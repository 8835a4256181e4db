"""Odd folders of images and odd lists: each is used as it should be, or refused before step 0.

    python -m launch.drills.folders [--only TEXT] [--verbose]

Every case is a folder with two classes of ten images, changed by a few lines, and one real command
line that forgets the cats. A refusal must name what is wrong. A command that is accepted must have
chosen the expected images of each split; otherwise it counts as silent.
"""

import argparse
import contextlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from launch.drills import ending, forked

SMALL = "tests/configs/small.py"
NOBODY = 65534  # user id without rights; root can read every file
LIST = "--config.split.forget.files={root}/../list.txt"
LISTED = ("cats/1.png", "cats/2.png")


def image(seed: int) -> Image.Image:
    """An image that no other seed has."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)
    return Image.fromarray(pixels)


def make(root: Path) -> None:
    """The folder that every case begins with."""
    for number, name in enumerate(("cats", "dogs")):
        (root / name).mkdir(parents=True)
        for i in range(10):
            image(100 * number + i).save(root / name / f"{i}.png")


class Case:
    """What is changed in the folder, what the command adds, and what must come of it."""

    def __init__(
        self,
        name: str,
        change: Callable[[Path], object] = lambda root: None,
        words: tuple[str, ...] = (),
        refused: str = "",
        warned: str = "",
        cats: int | None = 10,
        listed: bool = False,
        nobody: bool = False,
        plain: bool = True,
    ):
        self.name, self.change, self.words = name, change, words
        self.refused = refused  # a word of the message; "" if it must be accepted
        self.warned = warned  # a word that the log must have if it is accepted
        self.cats = cats  # images of the forget side in all
        self.listed = listed  # whether a list chooses the forget side
        self.nobody = nobody  # whether the command runs as a user without rights
        self.plain = plain  # whether the dogs are as at the beginning


def text(data: bytes, name: str = "list.txt") -> Callable[[Path], object]:
    """Writes a list beside the folder."""
    return lambda root: (root.parent / name).write_bytes(data)


def link(path: str, target: str) -> Callable[[Path], object]:
    """Makes root/path a link to target."""
    return lambda root: (root / path).symlink_to(target)


def raw(name: bytes) -> Callable[[Path], object]:
    """An image with a name of any bytes."""

    def change(root: Path) -> None:
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copy(os.fsencode(root / "cats" / "0.png"), path)

    return change


def saved(path: str, seed: int) -> Callable[[Path], object]:
    """Another image; seeds below 10 are the cats, from 100 to 109 the dogs."""

    def change(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        image(seed).save(root / path)

    return change


def elsewhere(root: Path) -> None:
    """Moves the cats to another folder, to which two classes link."""
    (root / "cats").rename(root.parent / "disk")
    for name in ("cats", "kitties"):
        (root / name).symlink_to("../disk")


def parts(root: Path) -> None:
    """Two parts, train and val, in place of the classes."""
    for part, numbers in (("train", range(8)), ("val", range(8, 10))):
        for name in ("cats", "dogs"):
            (root / part / name).mkdir(parents=True)
            for i in numbers:
                shutil.move(root / name / f"{i}.png", root / part / name)
    for name in ("cats", "dogs"):
        (root / name).rmdir()


def then(*changes: Callable[[Path], object]) -> Callable[[Path], object]:
    """One change after the other."""
    return lambda root: [change(root) for change in changes]


def forbid(path: str) -> Callable[[Path], object]:
    """Takes all rights from a file or folder."""
    return lambda root: (root / path).resolve().chmod(0)


def hidden(root: Path) -> None:
    """Hidden files and folders, as systems leave them behind."""
    (root / ".DS_Store").write_bytes(b"x")
    (root / "cats" / "._1.png").write_bytes(b"x")
    (root / "cats" / ".thumbs").mkdir()
    (root / ".git").mkdir()
    saved("cats/.thumbs/1.png", 5)(root)


def deep(root: Path) -> None:
    """An image sixty folders down."""
    saved("cats/" + "d/" * 60 + "x.png", 50)(root)


PARTS = ("--config.data.args.train=train", "--config.data.args.eval=val")
ALLOW = ("--config.split.duplicates=allow",)
FOLDERS = [
    Case("the folder as it is"),
    Case("a link to the parent folder", link("cats/loop", "..")),
    Case("a link to itself", link("cats/loop", ".")),
    Case("a link to two folders above", link("cats/loop", "../..")),
    Case("a link to another class", link("cats/friends", "../dogs")),
    Case("a class that is a link to another", link("kitties", "cats")),
    Case("two classes that link to one folder", elsewhere, warned="kitties"),
    Case("links in a circle", then(link("cats/a", "b"), link("cats/b", "a"))),
    Case("a class that is a broken link", link("birds", "nowhere"), warned="birds"),
    Case("an image that is a broken link", link("cats/x.png", "nowhere.png"), refused="x.png"),
    Case("an empty class", lambda root: (root / "birds").mkdir(), warned="birds"),
    Case("only empty classes", lambda root: [shutil.rmtree(root / n) or (root / n).mkdir()
                                             for n in ("cats", "dogs")], refused="no images"),
    Case("no folder", lambda root: shutil.rmtree(root), refused="no folder"),
    Case("a file in place of the folder", lambda root: [shutil.rmtree(root), root.touch()],
         refused="no folder"),
    Case("no root", words=("--config.data.args.root=",), refused="root"),
    Case("a root with a long name", words=("--config.data.args.root=/" + "x" * 300,),
         refused="xxx"),
    Case("a root with a very long path", words=("--config.data.args.root=" + "/x" * 3000,),
         refused="root"),
    Case("no classes, only images", lambda root: [
        [shutil.move(root / "cats" / f"{i}.png", root) for i in range(10)],
        shutil.rmtree(root / "cats"), shutil.rmtree(root / "dogs")], refused="sub-folder"),
    Case("images beside the classes", saved("loose.png", 50), warned="loose.png"),
    Case("a file name that is no UTF-8", raw(b"cats/caf\xe9.png"), refused="UTF-8"),
    Case("a class name that is no UTF-8", raw(b"caf\xe9/1.png"), refused="UTF-8"),
    Case("a line break in a name", raw(b"cats/a\nb.png"), refused="line break"),
    Case("a name of 255 bytes", saved("cats/" + "n" * 251 + ".png", 50), cats=11),
    Case("names with spaces, quotes and marks", then(saved("cats/a 'b' \"c\" <d>&.png", 50),
                                                     saved("cats/ä ñ 猫.png", 51)), cats=12),
    Case("an image sixty folders down", deep, cats=11),
    Case("endings in capitals", then(saved("cats/A.PNG", 50), saved("cats/B.Bmp", 51)), cats=12),
    Case("names that differ by case", then(saved("cats/a.png", 50), saved("cats/A.png", 51)),
         cats=12),
    Case("hidden files and folders", hidden),
    Case("other files among the images", lambda root: (root / "cats" / "n.txt").write_text("x")),
    Case("a folder that is named like an image", lambda root: (root / "cats" / "x.png").mkdir()),
    Case("a text that is named like an image", lambda root: (root / "cats" / "x.png").write_text(
        "x"), refused="x.png"),
    Case("an empty image", lambda root: (root / "cats" / "x.png").touch(), refused="x.png"),
    Case("a folder that cannot be read", forbid("dogs"), refused="dogs", nobody=True),
    Case("a root that cannot be read", forbid("."), refused="pets", nobody=True),
    Case("an image that cannot be read", forbid("cats/3.png"), refused="3.png", nobody=True),
    Case("a copy on the other side", saved("dogs/copy.png", 3), refused="3.png"),
    Case("a copy in another format", saved("dogs/copy.bmp", 3), refused="copy.bmp"),
    Case("a copy under a hard link", lambda root: os.link(
        root / "cats" / "3.png", root / "dogs" / "x.png"), refused="x.png"),
    Case("a copy under a link", link("dogs/x.png", "../cats/3.png"), refused="x.png"),
    Case("a copy that is allowed", saved("dogs/copy.png", 3), ALLOW, warned="copy.png",
         plain=False),
    Case("a copy on the same side", saved("cats/copy.png", 3), cats=11),
    Case("two parts", parts, PARTS),
    Case("two parts with a link between them", then(parts, link("val/cats/x", "../../train/cats")),
         PARTS, warned="val/cats/x"),
    Case("one folder as both parts", then(parts, lambda root: shutil.rmtree(root / "val"),
                                          link("val", "train")), PARTS, refused="one folder"),
    Case("one part inside the other", parts, ("--config.data.args.train=.",
                                              "--config.data.args.eval=val"), refused="inside"),
    Case("a part that is missing", parts, ("--config.data.args.train=train",
                                           "--config.data.args.eval=test"), refused="test"),
    Case("a class of one part only", then(parts, saved("val/birds/1.png", 50)), PARTS,
         refused="birds"),
    Case("no held-out images", words=("--config.data.args.eval_fraction=0.01",), refused="eval"),
    Case("a share that is no share", words=("--config.data.args.eval_fraction=1.5",),
         refused="eval_fraction"),
]  # fmt: skip
LISTS = [
    Case("a list", text(b"cats/1.png\ncats/2.png\n"), cats=2, listed=True),
    Case("a list with a UTF-8 mark", text(b"\xef\xbb\xbfcats/1.png\ncats/2.png"), cats=2,
         listed=True),
    Case("a list in UTF-16", text("cats/1.png\r\ncats/2.png\r\n".encode("utf-16")), cats=2,
         listed=True),
    Case("a list of Windows", text(b"cats/1.png\r\ncats/2.png\r\n"), cats=2, listed=True),
    Case("blank lines and spaces", text(b"\n\n cats/1.png \t\n\n\n\tcats/2.png   \n \n"), cats=2,
         listed=True),
    Case("repeated lines", text(b"cats/1.png\ncats/2.png\ncats/1.png\n"), cats=2, listed=True,
         warned="2 times"),
    Case("a list in JSON", text(b'{"keys": ["cats/1.png", "cats/2.png"]}', "list.json"),
         ("--config.split.forget.files={root}/../list.json",), cats=2, listed=True),
    Case("paths from the root of the disk", text(b"/data/pets/cats/1.png\n"), refused="cats/1.png",
         listed=True),
    Case("paths with backslashes", text(b"cats\\1.png\n"), refused="'cats/1.png'", listed=True),
    Case("paths with quotes", text(b'"cats/1.png"\n'), refused="Did you mean", listed=True),
    Case("paths that leave the folder", text(b"../pets/cats/1.png\n"), refused="Did you mean",
         listed=True),
    Case("an unknown name", text(b"cats/11.png\n"), refused="Did you mean", listed=True),
    Case("a name of another case", text(b"Cats/1.PNG\n"), refused="Did you mean", listed=True),
    Case("names without endings", text(b"cats/1\n"), refused="Did you mean", listed=True),
    Case("an empty list", text(b""), refused="no images", listed=True),
    Case("a list of blank lines", text(b"\n \r\n\t\n"), refused="no images", listed=True),
    Case("no list", refused="does not exist", listed=True),
    Case("a folder in place of the list", lambda root: (root.parent / "list.txt").mkdir(),
         refused="folder", listed=True),
    Case("an image in place of the list", lambda root: shutil.copy(root / "cats" / "0.png",
         root.parent / "list.txt"), refused="text", listed=True),
    Case("a list in Latin-1", text(b"cats/caf\xe9.png\n"), refused="UTF-8", listed=True),
    Case("a list in UTF-16 without a mark", text("cats/1.png".encode("utf-16-le")),
         refused="text", listed=True),
    Case("zeros", text(b"\0" * 1000), refused="text", listed=True),
    Case("a huge list", lambda root: (root.parent / "list.txt").open("wb").truncate(3 << 30),
         refused="bytes", listed=True),
    Case("a device in place of the list", link("../list.txt", "/dev/zero"), refused="regular",
         listed=True),
    Case("a broken link in place of the list", link("../list.txt", "nowhere"),
         refused="list.txt", listed=True),
    Case("a list that cannot be read", then(text(b"cats/1.png"), forbid("../list.txt")),
         refused="list.txt", listed=True, nobody=True),
    Case("a list with a long name", words=("--config.split.forget.files=" + "x" * 300,),
         refused="xxx", listed=True),
    Case("broken JSON", text(b'{"keys": [', "list.json"),
         ("--config.split.forget.files={root}/../list.json",), refused="JSON", listed=True),
    Case("JSON without keys", text(b'{"key": ["cats/1.png"]}', "list.json"),
         ("--config.split.forget.files={root}/../list.json",), refused="keys", listed=True),
    Case("JSON of numbers", text(b'{"keys": [1, 2]}', "list.json"),
         ("--config.split.forget.files={root}/../list.json",), refused="keys", listed=True),
    Case("a list and classes", text(b"cats/1.png"), ("--config.split.forget.classes=('cats',)",),
         refused="choose one", listed=True),
    Case("one list for both sides", text(b"cats/2.png"),
         ("--config.split.retain.files={root}/../list.txt",), refused="share", listed=True),
    Case("all images in the list", lambda root: text("".join(
        f"{n}/{i}.png\n" for n in ("cats", "dogs") for i in range(10)).encode())(root),
        refused="retain", listed=True),
]  # fmt: skip


def command(case: Case, root: Path) -> forked.Command:
    """The real command line of a case."""
    words = ["--config", SMALL, "--workdir", str(root.parent / "run"), "--config.data.name=folder",
             "--config.data.args.eval_fraction=0.3", f"--config.data.args.root={root}"]  # fmt: skip
    classes = () if case.listed else ("cats",)
    words += [f"--config.split.forget.classes={classes}", *([LIST] if case.listed else [])]
    given = [*words, *case.words]
    last = {word.partition("=")[0]: word.replace("{root}", str(root)) for word in given[4:]}

    def before() -> None:
        if case.nobody and os.getuid() == 0:
            os.environ["L2L_CACHE"] = str(root.parent / "cache")
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        forked.stop_at_step_0(tell=_print_splits)

    return forked.Command([*given[:4], *last.values()], before)


def _print_splits(experiment: object) -> None:
    splits = experiment.splits  # pyright: ignore[reportAttributeAccessIssue]
    print(json.dumps({name: list(split.keys) for name, split in splits.items()}))


def as_expected(case: Case, said: str) -> bool:
    """Whether an accepted command chose the images that it should, and warned as it should."""
    if case.refused or case.warned not in said:
        return False
    line = next((line for line in said.splitlines() if line.startswith('{"')), "{}")
    chosen = json.loads(line)
    forget = {key for name in ("forget", "forget_eval") for key in chosen.get(name, ())}
    retain = {key for name in ("retain", "retain_eval") for key in chosen.get(name, ())}
    held = set(chosen.get("forget_eval", ()))
    if case.listed:
        return forget == set(LISTED) and not forget & retain
    own = all("cats/" in key for key in forget) and all("dogs/" in key for key in retain)
    whole = len(forget) == case.cats and len(retain) == (10 if case.plain else 11)
    return own and whole and bool(held) and not held & set(chosen["forget"])


@contextlib.contextmanager
def prepared(cases: list[Case]) -> Iterator[list[forked.Command]]:
    """The commands of the cases, whose folders are removed in the end."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        commands = []
        for at, case in enumerate(cases):
            root = Path(folder) / str(at) / "pets"
            root.parent.mkdir()
            root.parent.chmod(0o777)
            make(root)
            case.change(root)
            commands.append(command(case, root))
        yield commands
        for path in Path(folder).rglob("*"):  # else they could not be removed
            if not path.is_symlink() and not stat.S_IMODE(path.stat().st_mode):
                path.chmod(0o755)


def main() -> None:
    """The drill of this file's docstring."""
    raw_help = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw_help)
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    parser.add_argument("--verbose", action="store_true", help="print what each command said")
    args = parser.parse_args()
    began, rows = time.time(), []
    forked.warm_up()
    cases = [case for case in [*FOLDERS, *LISTS] if args.only in case.name]
    with prepared(cases) as commands:
        results = forked.run_all(commands)
    for case, result in zip(cases, results, strict=True):
        equal = result is not None and as_expected(case, result.stderr)
        how = ending.ending(result, names=[case.refused] if case.refused else ["."])
        how = "harmless" if equal else "silent" if how == "explained" and not case.refused else how
        if args.verbose and result:
            print(f"--- {case.name}: {how}, exit code {result.returncode}\n{result.stderr[-1500:]}")
        rows.append((case.name, how))
    print(ending.table(rows, began))
    sys.exit(ending.failed(rows))


if __name__ == "__main__":
    main()
