"""Small pieces of a file that are read together: the same bytes as one by one, or none."""

from __future__ import annotations

import random
import zlib
from contextlib import ExitStack

import pytest

from bncli.files import runs
from bncli.files.file_bytes import Checksum, FileBytes
from bncli.files.held import held
from bncli.files.runs import GAP, KEPT, LARGEST, RUN, Runs


def data_file(tmp_path, size=3 * RUN):
    data = random.Random(0).randbytes(size)
    path = tmp_path / "data"
    path.write_bytes(data)
    return path, data


def found(runs, place):
    there = runs.find(place)
    return None if there is None else there[0][there[1] : there[1] + place.nbytes]


@pytest.mark.parametrize("seed", range(5))
def test_the_bytes_are_those_of_the_file(seed, tmp_path):
    path, data = data_file(tmp_path)
    draw = random.Random(seed)
    places = []
    for _ in range(300):
        begin = draw.choice([draw.randrange(len(data)), draw.randrange(2 * GAP)])
        places.append(FileBytes(path, begin, min(draw.choice([1, 8, 400]), len(data) - begin)))
    with ExitStack() as stack:
        of = Runs(places, stack)
        for place in draw.sample(places, len(places)):
            assert found(of, place) == data[place.offset : place.offset + place.nbytes]


def test_near_pieces_are_one_read_and_few_runs_are_kept(tmp_path, monkeypatch):
    path, _ = data_file(tmp_path, 20 * RUN)
    reads = []
    read_at = runs.read_at

    def counted(file, path, offset, count):
        reads.append(count)
        return read_at(file, path, offset, count)

    monkeypatch.setattr(runs, "read_at", counted)
    places = [FileBytes(path, 2 * RUN * i + 100 * j, 64) for i in range(9) for j in range(20)]
    with ExitStack() as stack:
        of = Runs(places, stack)
        for place in places:
            assert found(of, place) is not None
        assert reads == [100 * 19 + 64] * 9
        assert len(of._held) == KEPT


def test_what_is_not_small_and_plain_is_left(tmp_path):
    path, data = data_file(tmp_path)
    large = FileBytes(path, 0, LARGEST + 1)
    empty = FileBytes(path, 0, 0)
    inside = FileBytes(held(path, data), 0, 8)
    unknown = FileBytes(path, 0, 8)
    castagnoli = FileBytes(path, 0, 8, checksum=Checksum("t", 0, 8, 0, castagnoli=True))
    with ExitStack() as stack:
        of = Runs([large, empty, inside, castagnoli, lambda: None], stack)
        for place in (large, empty, inside, unknown, castagnoli):
            assert of.find(place) is None


def test_bytes_that_do_not_fit_their_checksum_are_left(tmp_path):
    path, data = data_file(tmp_path)
    right = Checksum("a", 10, 50, zlib.crc32(data[10:60]))
    wrong = Checksum("b", 100, 50, zlib.crc32(data[100:150]) ^ 1)
    good, bad = FileBytes(path, 20, 8, checksum=right), FileBytes(path, 110, 8, checksum=wrong)
    with ExitStack() as stack:
        of = Runs([good, bad], stack)
        assert found(of, good) == data[20:28]
        assert right.fits
        assert of.find(bad) is None
        assert not wrong.fits


def test_a_file_that_is_cut_or_gone_is_left_to_others(tmp_path):
    path, _ = data_file(tmp_path, 1000)
    place = FileBytes(path, 500, 100)
    path.write_bytes(b"short")
    with ExitStack() as stack:
        assert Runs([place], stack).find(place) is None
    path.unlink()
    with ExitStack() as stack:
        assert Runs([place], stack).find(place) is None
