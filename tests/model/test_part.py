"""The record of a part: it comes back from JSON as it was, and nothing else does."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bncli.model.part import Part, PartInput, may_list, part_beside, whole_of

PART = Part(
    2,
    5,
    (PartInput("a.npy", 80, "00ff"), PartInput("b.npy", 96, "0102")),
    number=9,
    nbytes=800,
    digest="abc",
    flags={"--dtype": "float32"},
    call=("compute", "*.npy", "--shard", "2/5"),
    versions={"bncli": "1"},
)


def test_a_part_comes_back_from_json():
    assert Part.of(json.loads(json.dumps(PART.plain()))) == PART
    assert Part.of(Part().plain()) == Part()


@pytest.mark.parametrize("name", sorted({*PART.plain()} - {"k", "n", "inputs"}))
def test_a_part_of_a_bncli_without_a_field_has_its_default(name):
    values = PART.plain()
    del values[name]
    assert Part.of(values) == replace(PART, **{name: getattr(Part(), name)})


def test_a_field_of_a_later_bncli_changes_nothing():
    assert Part.of(PART.plain() | {"later": 1}) == PART


@pytest.mark.parametrize("name", ["k", "n", "inputs"])
def test_without_its_inputs_it_is_no_part(name):
    values = PART.plain()
    del values[name]
    with pytest.raises(ValueError, match="digest"):
        Part.of(values)


@pytest.mark.parametrize(
    "change",
    [
        {"k": 5},
        {"k": -1},
        {"n": True},
        {"number": None},
        {"inputs": [["a.npy", 80]]},
        {"inputs": [["a.npy", "80", ""]]},
        {"inputs": "a.npy"},
        {"flags": {"--dtype": 1}},
        {"flags": []},
        {"call": "compute"},
        {"missing": [None]},
        {"digest": 7},
        {"nbytes": 1 << 63},
    ],
)
def test_what_is_no_part_is_refused(change):
    with pytest.raises(ValueError, match="digest"):
        Part.of(PART.plain() | change)


@pytest.mark.parametrize("value", [None, [], "part", 3])
def test_other_values_are_no_part(value):
    with pytest.raises(ValueError, match=r".*"):
        Part.of(value)


def test_the_whole_has_all_inputs_in_any_order():
    other = Part(0, 5, (PartInput("0.npy", 1, ""),), number=9, nbytes=800, digest="abc")
    one, two = whole_of([PART, other], [4, 1]), whole_of([other, PART], [1, 4])
    assert one == two
    assert (one.k, one.n, one.missing) == (0, 1, (1, 4))
    assert [each.path for each in one.inputs] == ["0.npy", "a.npy", "b.npy"]
    assert one.own_bytes == 177


def test_a_ranks_part_lies_beside_the_whole():
    assert part_beside("a/s.npz", 3, 12) == str(Path("a/s.part-3-of-12.npz"))
    assert part_beside("s.v1.NPZ", 0, 1) == "s.v1.part-0-of-1.NPZ"


def test_what_is_too_long_to_list_is_not_listed():
    many = replace(PART, inputs=tuple(PartInput(f"{i}" * 9, 1, "") for i in range(60_000)))
    assert whole_of([replace(many, k=0), many]).inputs == ()
    assert whole_of([replace(many, k=0)]).inputs != ()
    assert whole_of([PART, replace(PART, k=1, inputs=())]).inputs == ()
    assert not may_list(["x" * (1 << 22), "y"])


def test_the_share_of_batches_is_not_known_without_their_number():
    own = (PartInput("load.py:batches", 10, "0badcafe"),)
    assert Part(0, 2, own, number=8, nbytes=10, batches=4).share == 0.5
    assert Part(0, 2, own, number=0, nbytes=10, batches=4).share is None
