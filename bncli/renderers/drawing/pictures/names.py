"""Texts in pictures: how wide they are, how a long one is shortened, and which have room."""

from __future__ import annotations

from functools import lru_cache
from unicodedata import east_asian_width

from bncli.report import printable

SIZE = 11.0
"""Pixels of the letters in pictures."""

LINE = 13.0
"""Pixels from one line of text to the next."""

ELLIPSIS = "…"


def shortened(text: str, most: int) -> str:
    """Text as one harmless line of at most `most` characters; the middle of a long one goes."""
    text = printable(text[: 4 * most] + text[-4 * most :] if len(text) > 8 * most else text)
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return text[: most - 1 - tail] + ELLIPSIS + text[len(text) - tail :]


@lru_cache(maxsize=4096)
def text_width(text: str) -> float:
    """About how many pixels a line of text takes; more rather than less."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    known = "".join(character for character in text if east_asian_width(character) not in "WF")
    width, _, _ = TextToPath().get_text_width_height_descent(
        known, FontProperties(family="DejaVu Sans", size=SIZE), ismath=False
    )
    return float(width) + SIZE * (len(text) - len(known))


def fitted(text: str, room: float) -> str:
    """Text as one harmless line of at most `room` pixels; the middle of a long one goes."""
    most = max(int(room // 4), 1)
    text = shortened(text, most)
    while most > 1 and text_width(text) > room:
        most = min(most, len(text)) - 1
        text = shortened(text, most)
    return text


def every(number: int, room: float, each: float = LINE) -> int:
    """How many apart the names are that have room: 1 for all of `number`, 2 for each second."""
    return max(1, -int(-number * each // max(room, each)))
