"""An array as JSON has it, and as Python, NumPy and PyTorch print one: lists of numbers in lists.

A list at the same depth has the same length everywhere. The numbers are read more freely than
JSON's: `1.`, `nan` and `inf` are as good as `1.0`, `NaN` and `Infinity`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from pathlib import Path

from bncli.errors import CorruptFileError
from bncli.loaders.interface import Source
from bncli.loaders.names import quoted
from bncli.loaders.npy import MOST_AXES
from bncli.loaders.typed import content, decoded, first_fault, head_text, pieces, tensor_file
from bncli.model import TensorFile

EXAMPLE = "[[1, 2], [3, 4]]"
_TOKEN = re.compile(r"\[(?P<numbers>[^\[\]]*)\]|[\[\],]|(?P<other>[^\s\[\],][^\[\]]*)")


def detect(source: Source) -> bool:
    """Whether the file is text that begins with a list."""
    return head_text(source.head).lstrip().startswith("[")


def open_tensors(source: Source) -> TensorFile:
    """The array, read at once: its shape is known once its last list is."""
    return nested_lists(source.path, content(source))


def nested_lists(path: Path, chunks: Iterable[bytes]) -> TensorFile:
    """The tensor that the bytes of nested lists are, float32.

    Raises CorruptFileError for what is not a number, for lists of different lengths and for text
    that ends before its lists do.
    """
    lists = _Lists(path)
    for piece in pieces(path, decoded(path, chunks), "]"):
        for token in _TOKEN.finditer(piece):
            lists.take(token)
    return lists.finished()


class _Lists:
    """The lists that were read so far: how long they are at each depth, and the numbers in them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values = array("d")
        self.sizes: dict[int, int] = {}
        """The length of the lists at a depth, from 1; it is there once one of them is closed."""
        self.counts: list[int] = []
        """What the open lists hold so far, the outermost first."""
        self.axes = 0
        """The depth of the numbers; 0 until the first of them."""
        self.after_list = False
        """Whether the last token closed a list, so that a comma or another end is next."""

    def take(self, token: re.Match[str]) -> None:
        """Go on by one token."""
        text = token.group()
        if 1 in self.sizes:
            raise self._error(f"something follows its last list ({quoted(text, 40)}).")
        if self.after_list and text == ",":
            self.after_list = False
        elif self.after_list and text == "]":
            self._close(self.counts.pop())
        elif self.after_list or text in {",", "]"}:
            raise self._error(f"a comma before {self._place} is missing or one too many.")
        elif token["numbers"] is None and token.string.find("]", token.end()) < 0:
            raise self._cut()
        elif token["other"] is not None:
            if text.startswith("{"):
                raise self._error(f"{self._place} is an object, not a number or a list.")
            raise self._uneven(f"{self._place} is not a list, though there are lists beside it")
        elif text == "[":
            self._check_depth(list_of_lists=True)
            self.counts.append(0)
        else:
            self._check_depth(list_of_lists=False)
            self._close(self._numbers(token["numbers"]))

    def finished(self) -> TensorFile:
        """The tensor, at the end of the text."""
        if 1 not in self.sizes:
            raise self._cut()
        shape = tuple(self.sizes[depth] for depth in range(1, self.axes + 1))
        return tensor_file(self.path, "json", self.values, shape)

    def _numbers(self, text: str) -> int:
        """Keep the numbers of an innermost list, and count them."""
        parts = text.split(",") if text.strip() else []
        try:
            if "_" not in text:
                self.values.extend(map(float, parts))
                return len(parts)
        except ValueError:
            pass
        i, said = first_fault(parts)
        raise self._error(f"{self._place.removeprefix('it')}[{i}] {said}")

    def _close(self, size: int) -> None:
        """A list of this size ends, inside those that are open."""
        depth = len(self.counts) + 1
        wanted = self.sizes.setdefault(depth, size)
        if size != wanted:
            raise self._uneven(f"{self._place} has length {size}, and the lists before it {wanted}")
        if self.counts:
            self.counts[-1] += 1
        self.after_list = True

    def _check_depth(self, *, list_of_lists: bool) -> None:
        """Raise where no list, or no list of lists, may begin."""
        depth = len(self.counts) + 1
        if depth + list_of_lists > MOST_AXES:
            raise self._error(f"it has more than {MOST_AXES} lists inside each other.")
        if not list_of_lists:
            self.axes = self.axes or depth
        if self.axes and (depth < self.axes) != list_of_lists:
            what = "lists" if list_of_lists else "no lists"
            raise self._uneven(f"{self._place} holds {what}, unlike the lists before it")

    @property
    def _place(self) -> str:
        """What comes next, as Python would write it."""
        return "".join(f"[{count}]" for count in self.counts) or "it"

    def _uneven(self, fact: str) -> CorruptFileError:
        return self._error(f"{fact}; an array has the same length everywhere along an axis.")

    def _cut(self) -> CorruptFileError:
        return self._error("it ends before its last list is closed; write the missing ].")

    def _error(self, problem: str) -> CorruptFileError:
        return CorruptFileError(self.path, problem)
