"""Numbers written as text: how the text is decoded, and what becomes of the numbers.

They are float32, as numbers typed into PyTorch are, and float64 where that is asked for: each
decimal is then rounded once.
"""

from __future__ import annotations

import codecs
import io
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.errors import CorruptFileError
from bncli.light import np
from bncli.loaders.names import quoted
from bncli.loaders.npy import contiguous
from bncli.model import TensorFile, TensorRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.loaders.interface import Source

CHUNK = 1 << 20
LONGEST = 1 << 26
"""Characters of a row, or of an innermost list; a longer one is not a tensor that was typed."""
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""How the text begins that Windows PowerShell writes."""


class Numbers:
    """The values of a tensor, as they were typed; called, they are a flat float32 array."""

    def __init__(self, values: array[float]) -> None:
        self._values = values
        self._single: NDArray[Any] | None = None

    def __call__(self) -> NDArray[Any]:
        """The values rounded to float32; beyond its range they are infinite."""
        if self._single is None:
            with np.errstate(over="ignore"):
                self._single = self.exact().astype(np.float32)
        return self._single

    def exact(self) -> NDArray[Any]:
        """The values rounded to float64."""
        return np.asarray(self._values)


def tensor_file(
    path: Path, container: str, values: array[float], shape: tuple[int, ...]
) -> TensorFile:
    """The one tensor that the values are, in row-major order, as a file of it."""
    ref = TensorRef("", path, shape, "float32", contiguous(shape), Numbers(values))
    return TensorFile(path, container, {"": ref})


SPACES = " \t\n\r\v\f"
"""What `float` passes over around a number; `str.strip` takes away some control characters, too."""


def fault(text: str) -> str:
    """What is wrong with a number, to be said behind its place; "" for one that `float` reads."""
    word = text.strip(SPACES)
    try:
        if "_" not in word:
            float(word)
            return ""
    except ValueError:
        pass
    if not word:
        return "is empty; write nan where a value is missing."
    advice = ""
    if word.lower() in {"null", "none", "na", "n/a"}:
        advice = "; write nan where a value is missing"
    elif word.lower() in {"true", "false"}:
        advice = "; write 1 or 0"
    elif word.count(",") == 1 and word.replace(",", "").lstrip("+-").isdecimal():
        advice = "; write decimals with a point"
    elif len(words := word.split()) > 1 and not any(map(fault, words)):
        advice = "; put commas between the numbers"
    return f"is {quoted(word, 40)!r}, not a number{advice}."


def first_fault(texts: Iterable[str]) -> tuple[int, str]:
    """The first of these that is not a number, by its index, and what is wrong with it."""
    return next((i, said) for i, text in enumerate(texts) if (said := fault(text)))


def decoded(path: Path, chunks: Iterable[bytes]) -> Iterator[str]:
    r"""The text that the bytes are, with \n at the end of lines; UTF-8, or UTF-16 by its mark.

    Raises CorruptFileError for bytes that are not text.
    """
    decoder = None
    try:
        for chunk in chunks:
            if decoder is None:
                name = "utf-16" if chunk.startswith(UTF16) else "utf-8-sig"
                inner = codecs.getincrementaldecoder(name)()
                decoder = io.IncrementalNewlineDecoder(inner, translate=True)
            yield decoder.decode(chunk)
        if decoder is not None:
            yield decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise CorruptFileError(
            path, "it is not text in UTF-8 all through; save the numbers again."
        ) from None


def pieces(path: Path, texts: Iterable[str], end: str) -> Iterator[str]:
    """The text in pieces that go up to an `end`, but for the last.

    Raises CorruptFileError where one `end` is so far behind another that no tensor needs it.
    """
    rest = ""
    for text in texts:
        rest += text
        cut = rest.rfind(end) + 1
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
        if len(rest) > LONGEST:
            raise CorruptFileError(
                path,
                f"it has a row of more than {LONGEST} characters; save an array of that size"
                " with np.save.",
            )
    if rest:
        yield rest


def head_text(head: bytes) -> str:
    r"""What the first bytes of a file say, with \n at the end of lines; "" if they are not text.

    They may end inside a letter.
    """
    wide = head.startswith(UTF16)
    decode = codecs.utf_16_decode if wide else codecs.utf_8_decode
    try:
        text = decode(head.removeprefix(codecs.BOM_UTF8))[0]
    except UnicodeDecodeError:
        return ""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if " ".join(text.split()).isprintable() else ""


def content(source: Source) -> Iterator[bytes]:
    """All of a file, in pieces."""
    for at in range(source.start, source.size, CHUNK):
        yield source.read(at, min(CHUNK, source.size - at))
