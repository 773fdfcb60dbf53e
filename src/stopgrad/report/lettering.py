"""Words in a picture whose letters nobody has measured."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def clean(text: Any) -> str:
    """Without the characters that XML forbids."""
    return _UNPRINTABLE.sub("", str(text))


def wrapped(text: Any, width: float, size: float, most: int, *, bold: bool = False) -> list[str]:
    """Text in at most `most` lines that stay within `width`, judged by a wide font; what is too long ends in ….

    Nothing here can measure the reader's own font, so that letters are taken as wide as in the widest usual one.
    """
    lines, line = [], ""
    for word in clean(text).split():
        parts = list(_pieces(word, width, size, bold))
        for part in parts:
            joined = f"{line} {part}" if line else part
            if line and _width(joined, size, bold) > width:
                lines.append(line)
                line = part
            else:
                line = joined
    lines += [line] if line else []
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and _width(last + "…", size, bold) > width:
        last = last[:-1]
    return [*lines[: most - 1], last.rstrip(" ,;:") + "…"]


def _pieces(word: str, width: float, size: float, bold: bool) -> Iterator[str]:
    piece = ""
    for letter in word:
        if piece and _width(piece + letter, size, bold) > width:
            yield piece
            piece = ""
        piece += letter
    yield piece


def _width(text: str, size: float, bold: bool = False) -> float:
    ems = sum(
        1.0 if letter in "mwMW%@…—" or unicodedata.east_asian_width(letter) in "WF"
        else 0.40 if letter in " ijlftrI.,:;'|!()[]/-"
        else 0.74 if letter.isupper() else 0.62
        for letter in text
    )  # fmt: skip
    return ems * size * (1.12 if bold else 1.0)
