"""Words for people: durations, counts, and messages of one line that a terminal can show."""

from __future__ import annotations

import math
import re

# What a terminal obeys instead of showing it: controls (C0, DEL, C1), line separators, and marks that turn the
# direction of writing.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def duration(seconds: float, *, rough: bool = False) -> str:
    """A length of time as people say it, in at most two units: "0.45 s", "4.2 s", "42 s", "1 min 15 s", "2 h 10 min".

    Args:
        seconds: 0 or more.
        rough: for estimates: whole seconds, and from 10 minutes on whole minutes ("12 min", "2 h 10 min").
    """
    if rough:
        seconds = max(1, round(seconds)) if seconds < 599.5 else 60 * round(seconds / 60)
    elif seconds < 9.95:
        return f"{seconds:.{1 if seconds >= 0.995 else 2}f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min" if rough and whole >= 600 else f"{minutes} min {rest:02} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min"


def rounded(value: float, digits: int) -> str:
    """A number of 0 or more in so many digits, or as a whole number where that has more, never with an exponent:
    in two digits "0.012", "1.5", "42", "1063"."""
    places = max(0, digits - 1 - math.floor(math.log10(value))) if value else 0
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if places else text


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun, in the plural (``noun`` with an s, if not given) unless it is 1: "1 frame", "0 frames"."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def one_line(text: str) -> str:
    """The text with its lines joined by spaces, for messages."""
    return " ".join(text.splitlines())


def shortened(value: object, longest: int = 80) -> str:
    """A value that comes from others in at most that many characters, for messages."""
    text = " ".join(str(value).split())
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def printable(text: str) -> str:
    """The text with control characters as escapes such as ``\\x1b``: names of files, records and errors of
    plugins come from others, and a terminal would obey what is in them."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)
