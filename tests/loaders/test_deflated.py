"""Deflated bytes become what the archive promises, whole or piece by piece, or an error."""

import zlib
from dataclasses import replace

import numpy as np
import pytest

from bncli.errors import CorruptFileError
from bncli.loaders.deflated import Packed

DATA = np.arange(300_000, dtype=np.int32).tobytes()


def packed(tmp_path, cut=0):
    deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = deflater.compress(DATA) + deflater.flush()
    path = tmp_path / "x"
    path.write_bytes(b"front" + data[: len(data) - cut] + b"behind")
    return Packed(path, "x", 5, len(data) - cut, len(DATA), zlib.crc32(DATA)), data


def test_the_bytes_come_back_whole_in_pieces_and_from_the_front(tmp_path):
    member, data = packed(tmp_path)
    assert member.read() == DATA
    assert member.of(data) == DATA
    assert member.head(7) == DATA[:7]
    assert b"".join(member.chunks()) == DATA


@pytest.mark.parametrize("change", [{"size": len(DATA) - 1}, {"size": len(DATA) + 1}, {"crc": 0}])
def test_what_the_archive_does_not_promise_is_refused(tmp_path, change):
    member, data = packed(tmp_path)
    wrong = replace(member, **change)
    with pytest.raises(CorruptFileError, match="member x does not"):
        wrong.read()
    with pytest.raises(CorruptFileError, match="member x does not"):
        wrong.of(data)


def test_bytes_that_are_cut_are_refused(tmp_path):
    member, _ = packed(tmp_path, cut=9)
    with pytest.raises(CorruptFileError, match="does not decompress to the"):
        member.read()
