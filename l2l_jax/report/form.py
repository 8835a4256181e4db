"""The form that the files of a workdir must have to be shown, as far as a page reads them.

A workdir may come from another machine, from another version, or from somebody who wants to harm.
`check` compares a value with its form and names the first key that differs. A form is a function
that returns what is expected, as text, if a value is something else.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from l2l_jax.lib.errors import ConfigError
from l2l_jax.lib.text import printable

Form = Callable[[Any, tuple[str, ...]], None]
MAX_DEPTH = 40  # of nested values; those of a config have six levels
MAX_WHOLE, MAX_NUMBER = 1 << 62, 1e300


class _Wrong(Exception):
    def __init__(self, key: tuple[str, ...], expected: str):
        super().__init__(key, expected)
        self.key, self.expected = key, expected


def check(path: Path, value: Any, form: Form, key: tuple[str, ...] = ()) -> None:
    """ConfigError, with the file and the key, if the value does not have the form."""
    try:
        form(value, key)
    except _Wrong as wrong:
        where = ".".join(wrong.key)
        raise ConfigError(
            f"{path}: {printable(where)[:200] or 'the content'} should be {wrong.expected}. The "
            "file was edited, or made by another version; evaluate the run again with "
            "'python -m l2l_jax.evaluate'."
        ) from None


def cleaned(path: Path, value: Any, depth: int = 0) -> Any:
    """The value with every text in it printable. ConfigError if it is nested too deeply."""
    if depth > MAX_DEPTH:
        raise ConfigError(f"{path} is nested more than {MAX_DEPTH} levels deep.")
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(k): cleaned(path, v, depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        return [cleaned(path, item, depth + 1) for item in value]
    return value


def anything(value: Any, key: tuple[str, ...]) -> None:
    """Accepts every value."""
    del value, key


def text(value: Any, key: tuple[str, ...]) -> None:
    """A text."""
    if not isinstance(value, str):
        raise _Wrong(key, "a text")


def whole(value: Any, key: tuple[str, ...]) -> None:
    """A whole number."""
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_WHOLE:
        raise _Wrong(key, "a whole number")


def count(value: Any, key: tuple[str, ...]) -> None:
    """A whole number that is not negative."""
    whole(value, key)
    if value < 0:
        raise _Wrong(key, "a whole number, at least 0")


def digits(value: Any, key: tuple[str, ...]) -> None:
    """A number of decimal places."""
    whole(value, key)
    if not 0 <= value <= 12:
        raise _Wrong(key, "a number of decimal places, 0 to 12")


def number(value: Any, key: tuple[str, ...]) -> None:
    """A number; nan and infinity, too."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or MAX_NUMBER < abs(value) < float("inf"):
        raise _Wrong(key, "a number")


def one_of(*choices: Any) -> Form:
    """One of these values."""

    def form(value: Any, key: tuple[str, ...]) -> None:
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise _Wrong(key, f"one of {', '.join(map(repr, choices))}")

    return form


def maybe(inner: Form) -> Form:
    """null, or this form."""

    def form(value: Any, key: tuple[str, ...]) -> None:
        if value is not None:
            inner(value, key)

    return form


def each(inner: Form) -> Form:
    """A section whose entries have a form."""

    def form(value: Any, key: tuple[str, ...]) -> None:
        if not isinstance(value, Mapping):
            raise _Wrong(key, "a section")
        for name, item in value.items():
            inner(item, (*key, name))

    return form


def files(inner: Form) -> Form:
    """A section whose names are those of files in one folder."""

    def form(value: Any, key: tuple[str, ...]) -> None:
        each(inner)(value, key)
        for name in value:
            if Path(name).name != name or name in ("", ".."):
                raise _Wrong((*key, name), "the name of a file, without a folder")

    return form


def many(inner: Form, least: int = 0, most: int | None = None) -> Form:
    """A list whose items have a form."""

    def form(value: Any, key: tuple[str, ...]) -> None:
        if not isinstance(value, list):
            raise _Wrong(key, "a list")
        if len(value) < least or (most is not None and len(value) > most):
            raise _Wrong(key, f"a list of {least} to {most or 'many'} values")
        for at, item in enumerate(value):
            inner(item, (*key, str(at)))

    return form


def section(needed: Mapping[str, Form], optional: Mapping[str, Form] | None = None) -> Form:
    """A section with these entries, and with others that nothing reads."""

    def form(value: Any, key: tuple[str, ...]) -> None:
        if not isinstance(value, Mapping):
            raise _Wrong(key, "a section")
        for name, inner in needed.items():
            if name not in value:
                raise _Wrong((*key, name), "there")
            inner(value[name], (*key, name))
        for name, inner in (optional or {}).items():
            if name in value:
                inner(value[name], (*key, name))

    return form


def holding(names: Sequence[str], inner: Form) -> Form:
    """A section in which these names exist and whose entries have a form."""

    def form(value: Any, key: tuple[str, ...]) -> None:
        each(inner)(value, key)
        for name in names:
            if name not in value:
                raise _Wrong((*key, name), "there")

    return form
