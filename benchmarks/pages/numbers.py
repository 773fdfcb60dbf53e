"""How figures are written on the pages: accuracies in per cent, differences in points, a proper minus."""

import statistics

MINUS = "\N{MINUS SIGN}"
LEAST_SEEDS = 3
"""With fewer there is no verdict."""


def signed(value, digits=1):
    """With its sign; a difference that rounds to nothing has none."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", MINUS)


def plain(value, digits=1):
    return f"{value:.{digits}f}".replace("-", MINUS)


def count(value):
    return f"{round(value):,}"


def with_std(values, factor=1.0, digits=1):
    """Mean ± sample deviation; the mean alone of one value."""
    values = [factor * value for value in values]
    spread = f" ± {plain(statistics.stdev(values), digits)}" if len(values) > 1 else ""
    return plain(statistics.fmean(values), digits) + spread


def from_to(values, digits=1, sign=False):
    """The least and the most: 4.1 to 5.3, or one figure where both are written alike."""
    write = signed if sign else plain
    low, high = write(min(values), digits), write(max(values), digits)
    return low if low == high else f"{low} to {high}"


def spell(number):
    """A small number in a word."""
    words = "no one two three four five six seven eight nine ten eleven twelve".split()
    return words[number] if number < len(words) else str(number)
