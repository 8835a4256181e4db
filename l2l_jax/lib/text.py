"""Text from files and folders that nobody vouches for, made safe to print."""

import re

# Control characters but tab and line feed, which could drive a terminal; halves of UTF-16 pairs,
# which no encoding accepts; line separators; marks that reverse the direction of the text around.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
REPLACEMENT = "\ufffd"


def printable(text: str) -> str:
    """The text with U+FFFD in place of every character that is not printed as one."""
    return UNPRINTABLE.sub(REPLACEMENT, text)


def one_line(text: str) -> str:
    """The same on one line: all white space becomes single spaces."""
    return " ".join(printable(text).split())
