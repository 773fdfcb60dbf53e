"""Texts that may come from a stranger, such as names of files and classes, made safe to show."""

import re

# C0 and C1 controls but tab and newline, among them the escape that steers terminals; bytes that are no UTF-8.
_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff"
# What turns the direction of a line (Unicode's bidirectional controls), and separators of lines.
_DIRECTION = r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_HIDDEN, _ALL_HIDDEN = re.compile(f"[{_CONTROLS}]"), re.compile(f"[{_CONTROLS}{_DIRECTION}]")


def visible(text: str, *, keep_direction: bool = False) -> str:
    """The text with control characters shown as escapes, so that a name cannot steer a terminal or reorder a line.

    Tabs, newlines and all that can be printed stay. A byte that is no UTF-8 is shown as `\\xff`.

    Args:
        text: what is shown.
        keep_direction: leave the controls of direction, for what isolates each name by itself, as pages do.
    """
    return (_HIDDEN if keep_direction else _ALL_HIDDEN).sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
