"""Parts of a whole: nothing is merged that does not add up."""

from dataclasses import replace

import pytest

from bncli.errors import FileError
from bncli.files.reading import reading
from bncli.loaders.parts import check_parts, held_inputs
from bncli.model.part import Part, PartInput


def parts(n=4):
    call = ("compute", "x*.npy", "--shard", "0/4", "--save-stats", "parts/0.npz")
    shared = {"number": 9, "nbytes": 900, "digest": "d", "flags": {"--dtype": "float32"}}
    return [
        Part(k, n, (PartInput(f"gone{k}.npy", 225, ""),), call=call, **shared) for k in range(n)
    ]


def check(given, *, allow=False):
    with reading(allow_missing_parts=allow) as call:
        return check_parts([f"p{part.k}.npz" for part in given], given), call.missing


def test_all_parts_are_the_whole_in_any_order():
    whole, missing = check(parts())
    assert (whole.k, whole.n, len(whole.inputs), missing) == (0, 1, 4, [])
    assert check(parts()[::-1])[0] == whole


def test_a_missing_part_is_named_with_the_call_that_makes_it():
    given = parts()
    with pytest.raises(FileError) as error:
        check([given[0], given[2]])
    said = str(error.value)
    assert "shards 1 and 3 of 4 are missing" in said
    assert "bncli compute 'x*.npy' --shard 1/4 --save-stats parts/1.npz, and shard 3" in said
    _, (missing,) = check([given[0], given[2]], allow=True)
    assert (missing.shards, missing.n, missing.share) == ((1, 3), 4, 0.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n": 5}, "of 5 shards and not of 4"),
        ({"flags": {}}, "made without --dtype and not with --dtype float32"),
        ({"digest": "e"}, "made of other inputs"),
        ({"k": 0}, "it is shard 0 of 4"),
    ],
)
def test_what_does_not_belong_is_named(change, said):
    given = parts()
    given[2] = replace(given[2], **change)
    with pytest.raises(FileError, match=said):
        check(given)


def test_resuming_needs_the_same_inputs_and_flags():
    made, wanted = parts()[1], parts()[1]
    assert held_inputs("p.npz", made, wanted) == ["gone1.npy"]
    for other in (
        replace(made, k=2),
        replace(made, flags={}),
        replace(made, inputs=()),
        replace(made, missing=(1,)),
        replace(made, inputs=(PartInput("gone1.npy", 226, ""),)),
        replace(made, inputs=(PartInput("other.npy", 225, ""),)),
    ):
        with pytest.raises(FileError, match="--resume cannot use it"):
            held_inputs("p.npz", other, wanted)
