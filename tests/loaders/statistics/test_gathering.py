"""Parts of ranks: where they lie, and what rank 0 makes of them; ranks are in test_by_ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bncli.errors import FileError, RankError
from bncli.files.reading import reading
from bncli.loaders.statistics import gathering
from bncli.loaders.statistics.file import open_statistics, statistics_bytes, write_statistics
from bncli.model.part import Part, part_beside
from bncli.process.ranks.group import LeftError, working
from tests.loaders.statistics.captures import odd_capture, unlike


class One:
    """A group that one rank sees; `others` is what the rest of it sends."""

    def __init__(self, rank=0, others=()):
        self.rank, self.world, self.afterwards = rank, 1 + len(others), []
        self._others = others

    def said(self, rank):
        return f"rank {rank} on node{rank}"

    def gather(self, payload):
        if self.rank:
            raise LeftError
        return [payload, *self._others]


def test_a_part_lies_beside_the_whole():
    with working(One(0, (b"", b""))):
        assert gathering.own_target("out/stats.npz") == str(Path("out/stats.part-0-of-3.npz"))
        assert gathering.own_target(None) is None


def test_what_one_rank_saw_comes_back_and_its_part_goes_when_all_is_done(folder):
    capture, group = replace(odd_capture(), part=Part()), One()
    with working(group):
        whole = gathering.gathered(capture, "s.npz")
    assert unlike(whole, capture) is None
    assert unlike(open_statistics("s.part-0-of-1.npz"), capture) is None
    group.afterwards[0]()
    assert not [*folder.iterdir()]


def test_a_rank_that_leaves_has_saved_its_part(folder):
    with working(One(1, (b"",))), pytest.raises(LeftError):
        gathering.gathered(odd_capture(), "s.npz")
    assert [path.name for path in folder.iterdir()] == ["s.part-1-of-2.npz"]


def test_a_rank_without_work_sends_and_saves_nothing(folder):
    capture = replace(odd_capture(), part=Part())
    group = One(0, (gathering.MADE + statistics_bytes(capture),))
    with working(group):
        assert unlike(gathering.gathered(None, "s.npz"), capture) is None
    assert not group.afterwards
    assert not [*folder.iterdir()]


@pytest.mark.parametrize(
    ("number", "said"), [(1, "rank 0 had finished its part"), (2, "2 ranks had finished their")]
)
def test_parts_that_were_finished_are_told(number, said):
    capture = replace(odd_capture(), part=Part())
    others = [gathering.KEPT + statistics_bytes(capture)] * (number - 1)
    with reading() as call, working(One(0, others)):
        gathering.gathered(capture, None, kept=True)
    assert [note[: len(said)] for note in call.notes] == [said]


def test_a_part_that_is_there_is_not_overwritten(folder):
    write_statistics(part_beside("s.npz", 0, 2), odd_capture())
    with working(One(0, (b"",))):
        with pytest.raises(FileError, match=r"part-0-of-2\.npz: it exists already"):
            gathering.check_no_part("s.npz")
        with pytest.raises(FileError, match="it exists already"):
            gathering.gathered(odd_capture(), "s.npz")


def test_ranks_that_see_other_inputs_are_named():
    other = replace(odd_capture(), part=Part(1, 2, number=3, nbytes=8, digest="b"))
    mine = replace(odd_capture(), part=Part(0, 2, number=2, nbytes=8, digest="a"))
    group = One(0, (gathering.MADE + statistics_bytes(other),))
    with working(group), pytest.raises(RankError) as caught:
        gathering.gathered(mine, None)
    assert str(caught.value) == (
        "rank 1 on node1 sees 3 inputs of 8 bytes and rank 0 on node0 2 of 8, or of other names or "
        "sizes; all ranks need the same files."
    )
