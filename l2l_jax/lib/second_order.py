"""Marks what is differentiated twice: models then use no fused kernel, which has one derivative."""

import contextlib
import contextvars
from collections.abc import Iterator

_twice = contextvars.ContextVar("twice", default=False)


def twice() -> bool:
    """Whether what is being traced will be differentiated twice."""
    return _twice.get()


@contextlib.contextmanager
def differentiable() -> Iterator[None]:
    """Within it, what is traced can be differentiated twice."""
    token = _twice.set(True)
    try:
        yield
    finally:
        _twice.reset(token)
