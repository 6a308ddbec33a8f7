"""Texts in pictures: how wide they are, how a long one is shortened, and which have room."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from unicodedata import east_asian_width

from bncli.report import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIZE = 11.0
"""Pixels of the letters in pictures."""

LINE = 13.0
"""Pixels from one line of text to the next."""

ELLIPSIS = "…"


def shortened(text: str, most: int) -> str:
    """Text as one harmless line of at most `most` characters; the middle of a long one goes."""
    text = _line(text, most)
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return text[: most - 1 - tail] + ELLIPSIS + text[len(text) - tail :]


def _line(text: str, most: int) -> str:
    """Text as one harmless line; of a very long one both ends."""
    return printable(text[: 4 * most] + text[-4 * most :] if len(text) > 8 * most else text)


def told_apart(names: Sequence[str], most: int) -> list[str]:
    """The names in at most `most` characters each; different names stay different.

    Where the middle of a name is what tells it from the others, its beginning goes, or what it has
    in common with those that are like it. Where that does not help, all are numbered.
    """
    texts = [_line(name, most) for name in names]
    ways: tuple[Callable[[list[str]], list[str]], ...] = (
        lambda texts: [shortened(text, most) for text in texts],
        lambda texts: [_ending(text, most) for text in texts],
        lambda texts: [_ending(text, most, whole=False) for text in texts],
        lambda texts: _differing(texts, most),
    )
    different = len(set(names))
    for way in ways:
        labels = way(texts)
        if len(set(labels)) == different:
            return labels
    places = {name: f"({place}) " for place, name in enumerate(dict.fromkeys(names), 1)}
    return [
        places[name] + shortened(text, max(most - len(places[name]), 1))
        for name, text in zip(names, texts, strict=True)
    ]


def _ending(text: str, most: int, *, whole: bool = True) -> str:
    """The end of a dotted name, of `whole` parts where there is room; of a sentence, both ends."""
    if len(text) <= most or " " in text:
        return shortened(text, most)
    end = text[1 - most :]
    parts = end.partition(".")[2]
    return ELLIPSIS + (parts if whole and len(parts) > most // 2 else end)


def _differing(texts: list[str], most: int) -> list[str]:
    """What tells a text from those that are shortened like it, with as much around as has room."""
    labels = {text: shortened(text, most) for text in texts}
    alike: dict[str, list[str]] = {}
    for text, label in labels.items():
        alike.setdefault(label, []).append(text)
    for group in alike.values():
        if len(group) == 1:
            continue
        start = _alike(group)
        start = max(group[0].rfind(sign, 0, start) + 1 for sign in " .")
        after = _alike([text[start:][::-1] for text in group])
        cores = [text[start : len(text) - after] for text in group]
        if start + after and most > 8 and max(map(len, cores)) > most - 2:
            for text, core in zip(group, _differing(cores, most - 2), strict=True):
                labels[text] = ELLIPSIS + core.strip(ELLIPSIS) + ELLIPSIS
        else:
            labels.update((text, _around(text, start, len(text) - after, most)) for text in group)
    return [labels[text] for text in texts]


def _alike(texts: Sequence[str]) -> int:
    """With how many characters all of them begin alike."""
    first, last = min(texts), max(texts)
    there = zip(first, last, strict=False)
    return next((at for at, (one, other) in enumerate(there) if one != other), len(first))


def _around(text: str, start: int, end: int, most: int) -> str:
    """From `start` to `end` of a text, and what is around it, in `most` characters."""
    if end - start > most - 2:
        return shortened(text, most)
    room = most - 2 - (end - start)
    first = max(min(start - room // 2, len(text) - most + 1), 0)
    if first:  # where a word begins, if one does
        first = max(text.find(sign, first - 1, start) + 1 for sign in " .") or first
    last = min(first + most - 2 + (first == 0), len(text))
    before, behind = ELLIPSIS * (first > 0), ELLIPSIS * (last < len(text))
    return f"{before}{text[first:last]}{behind}"


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
