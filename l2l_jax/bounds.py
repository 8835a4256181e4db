"""Bounds: which values a key of the config, or an argument of a plug-in, can have."""

import dataclasses
import math
from typing import Any

INF = math.inf
MAX_SEED = 2**32 - 1  # the largest that every library here takes
MAX_SIDE = 4096  # pixels of an image
MAX_WIDTH = 1 << 16  # of a layer
MAX_DEPTH = 1000  # blocks of a network


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The numbers in [low, high], or one of some texts. A number is finite unless it is special.

    Of several values, such as those of a tuple, each has these bounds; texts among numbers, and
    numbers among texts, are not bounded.
    """

    low: float = -INF
    high: float = INF
    open_low: bool = False  # whether `low` itself is not allowed
    open_high: bool = False
    special: tuple[float, ...] = ()  # numbers outside of [low, high] that are allowed too
    choices: tuple[str, ...] = ()  # of a text; () = any text

    def allow(self, value: Any) -> bool:
        """Whether a value is within the bounds; nan never is."""
        if isinstance(value, tuple | list):
            return all(map(self.allow, value))
        if isinstance(value, str):
            return not self.choices or value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        low = value > self.low if self.open_low else value >= self.low
        high = value < self.high if self.open_high else value <= self.high
        return value in self.special or (low and high and abs(value) < INF)

    def __str__(self) -> str:
        """The bounds for people: "at least 1 and below 10"; "" if only inf and nan are refused."""
        if self.choices:
            *first, last = map(repr, self.choices)
            return f"{', '.join(first)} or {last}" if first else last
        words = []
        if self.low > -INF:
            words.append(f"{'above' if self.open_low else 'at least'} {_number(self.low)}")
        if self.high < INF:
            words.append(f"{'below' if self.open_high else 'at most'} {_number(self.high)}")
        return " and ".join(words) + "".join(f", or {_number(value)}" for value in self.special)


def _number(value: float) -> str:
    """1000000 as "1,000,000", 0.5 as "0.5"."""
    return f"{int(value):,}" if value == int(value) and abs(value) < 1e12 else f"{value:g}"


# Bounds that several plug-ins share.
SEED_BOUNDS = Bounds(0, MAX_SEED)
PIXEL_BOUNDS = Bounds(1, MAX_SIDE)  # of a side of an image
WIDTH_BOUNDS = Bounds(0, MAX_WIDTH)  # of a layer; 0: that of the named size
DEPTH_BOUNDS = Bounds(0, MAX_DEPTH)  # blocks of a network; 0: those of the named size
