"""Durations, counts and lines, as people read them."""

from __future__ import annotations

import pytest

from stylize.text import counted, duration, one_line, printable, rounded


@pytest.mark.parametrize(
    ("seconds", "exact", "rough"),
    [
        (0, "0.00 s", "1 s"),
        (0.456, "0.46 s", "1 s"),
        (0.996, "1.0 s", "1 s"),
        (4.24, "4.2 s", "4 s"),
        (9.96, "10 s", "10 s"),
        (59.4, "59 s", "59 s"),
        (59.6, "1 min 00 s", "1 min 00 s"),
        (75, "1 min 15 s", "1 min 15 s"),
        (599.4, "9 min 59 s", "9 min 59 s"),
        (599.6, "10 min 00 s", "10 min"),
        (2282, "38 min 02 s", "38 min"),
        (3599.4, "59 min 59 s", "1 h 00 min"),
        (3600, "1 h 00 min", "1 h 00 min"),
        (7800, "2 h 10 min", "2 h 10 min"),
        (7829, "2 h 10 min", "2 h 10 min"),
        (360_000, "100 h 00 min", "100 h 00 min"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float, exact: str, rough: str) -> None:
    assert duration(seconds) == exact
    assert duration(seconds, rough=True) == rough


def test_a_count_has_the_right_plural() -> None:
    assert [counted(number, "frame") for number in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]
    assert [counted(number, "copy", "copies") for number in (1, 3)] == ["1 copy", "3 copies"]


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        *[(0, 3, "0"), (0.01234, 2, "0.012"), (1.5, 3, "1.5"), (2.0, 3, "2"), (42.4, 2, "42"), (99.96, 3, "100")],
        *[(1063.2, 3, "1063"), (123456.0, 2, "123456"), (999.99, 3, "1000")],
    ],
)
def test_a_number_is_rounded_and_has_no_exponent(value: float, digits: int, shown: str) -> None:
    assert rounded(value, digits) == shown


def test_a_message_is_one_line_and_keeps_its_spaces() -> None:
    assert one_line("cannot read a  b.png:\ntruncated") == "cannot read a  b.png: truncated"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe 図 👩‍🚀 a\u00a0b.png", "größe 図 👩‍🚀 a\u00a0b.png"),
        ("\x1b]0;title\x07.png", "\\x1b]0;title\\x07.png"),
        ("a\nb\tc\rd\x7fe", "a\\nb\\tc\\rd\\x7fe"),
        ("\x9b31m red", "\\x9b31m red"),
        ("\u202egnp.exe \u2028", "\\u202egnp.exe \\u2028"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(text: str, shown: str) -> None:
    assert printable(text) == shown
