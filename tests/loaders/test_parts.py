"""Parts of a whole: nothing is merged that does not add up."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bncli.errors import FileError
from bncli.files.reading import reading
from bncli.loaders.parts import check_parts, held_inputs, made_part
from bncli.model.part import MOST_SHARDS, Part, PartInput, whole_of


def call(k, n=4):
    return ("compute", "x*.npy", "--shard", f"{k}/{n}", "--save-stats", f"parts/{k}.npz")


def parts(n=4):
    shared = {"number": 9, "nbytes": 900, "digest": "d", "names": "n"}
    shared["flags"] = {"--dtype": "float32"}
    return [
        Part(k, n, (PartInput(f"gone{k}.npy", 225, ""),), call=call(k, n), **shared)
        for k in range(n)
    ]


def check(given, *, allow=False):
    with reading(allow_missing_parts=allow) as made:
        return check_parts([f"p{part.k}.npz" for part in given], given), made.missing


def test_all_parts_are_the_whole_in_any_order():
    whole, missing = check(parts())
    assert (whole.k, whole.n, len(whole.inputs), missing) == (0, 1, 4, [])
    assert check(parts()[::-1])[0] == whole


def test_a_missing_part_is_named_with_the_call_that_makes_it():
    given = parts()
    with pytest.raises(FileError) as error:
        check([given[0], given[2]])
    said = str(error.value)
    assert "it is one of 4 shards, and shards 1/4 and 3/4 are missing; add --allow" in said
    assert said.endswith(
        "make shard 1/4 (and the others likewise) with: "
        "bncli compute 'x*.npy' --shard 1/4 --save-stats parts/1.npz"
    )
    _, (missing,) = check([given[0], given[2]], allow=True)
    assert (missing.shards, missing.n, missing.share) == ((1, 3), 4, 0.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"n": 5},
            "made with --shard 2/5, but the 3 other parts were made with --shard K/4; remove",
        ),
        (
            {"n": 1, "k": 0},
            "made without --shard, but the 3 other parts were made with --shard K/4",
        ),
        (
            {"flags": {"--state": "a"}},
            "with --state a, but the 3 other parts were made with --dtype float32 and",
        ),
        (
            {"names": "m"},
            "9 inputs, but the 3 other parts were made when some of them had other names",
        ),
        (
            {"number": 8},
            "8 inputs, but the 3 other parts were made when there were 9; inputs came, went",
        ),
    ],
)
def test_what_does_not_belong_is_named_with_the_call_that_makes_it(change, said):
    given = parts()
    given[2] = replace(given[2], **change)
    with pytest.raises(FileError, match=said) as error:
        check_parts([f"parts/{k}.npz" for k in range(4)], given)
    made = "make shard 2/4 with: bncli compute 'x*.npy' --shard 2/4 --save-stats parts/2.npz"
    assert str(error.value).startswith("parts/2.npz: ")
    assert str(error.value).endswith(f" remove this part and {made}")
    with pytest.raises(FileError) as error:
        check_parts(["parts/a.npz", *(f"parts/{k}.npz" for k in (0, 1, 3))], [given.pop(2), *given])
    assert str(error.value).endswith(f" leave this part out and {made}")


def test_what_is_too_much_is_left_out():
    given = parts()
    with pytest.raises(
        FileError, match=r"but the 4 other parts were made with --shard K/4; leave it out\.$"
    ):
        check([*given, replace(given[2], n=5)])
    with pytest.raises(
        FileError, match=r"^q: it is shard 2/4, and so is p; .*\(as would .* r\)\.$"
    ):
        check_parts([*"abpdqr"], [*given, given[2], given[3]])


def test_a_call_names_no_file_that_another_part_is_in():
    given = [
        replace(part, call=("compute", "--save-stats=p/a.npz", "--shard=0/4")) for part in parts()
    ]
    with pytest.raises(FileError) as error:
        check(given[:3])
    assert str(error.value).endswith("with: bncli compute --save-stats=p/FILE.npz --shard=3/4")


def test_every_part_whose_inputs_changed_is_named(save):
    given = []
    for part in parts():
        path = str(save(f"in{part.k}.npy", np.full(3, part.k)))
        given.append(made_part((part.k, 4), [f"in{k}.npy" for k in range(part.k + 1)], [path], {}))
    shared = {"number": 4, "nbytes": 608, "digest": "d", "names": "n"}
    given = [replace(part, **shared, call=call(part.k)) for part in given]
    assert check(given)[1] == []
    save("in1.npy", np.full(3, 8))
    save("in3.npy", np.full(4, 3))
    with pytest.raises(FileError) as error:
        check_parts([f"parts/{k}.npz" for k in range(4)], given)
    said = str(error.value)
    assert said.startswith("parts/1.npz: its input ")
    assert "in1.npy has changed since it was read (inputs of parts/3.npz have changed, too)" in said
    assert said.endswith("--shard 1/4 --save-stats parts/1.npz")


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


def test_parts_of_other_versions_are_noted():
    given = parts()
    for part, version in zip(given, "1123", strict=True):
        part.versions.update(bncli=version)
    with reading() as made:
        check_parts([f"p{part.k}.npz" for part in given], given)
    assert list(made.notes) == ["the parts were made with different bncli: 1, 2, 3"]


def test_a_file_without_a_record_does_not_pass_for_a_part():
    given = parts()
    given[1] = Part(1, 4)
    with pytest.raises(FileError, match="by an older bncli, which does not record the inputs"):
        check(given)
    check([Part(k, 4) for k in range(4)])  # all of them are of a bncli that did not


def test_what_lacked_parts_is_not_mended_by_one_of_them():
    given = parts()
    lacking = whole_of(given[:3], [3])
    with pytest.raises(FileError, match="merge all parts again, with those that were missing"):
        check_parts(["whole.npz", "p3.npz"], [lacking, given[3]])
    with pytest.raises(FileError, match="it was merged without shard 3; add --allow-missing"):
        check([lacking])


def test_many_missing_parts_are_counted():
    with pytest.raises(FileError) as error:
        check([replace(parts()[0], n=MOST_SHARDS, number=MOST_SHARDS)])
    assert len(str(error.value)) < 800
    with pytest.raises(ValueError, match="1000001"):
        Part.of(Part(0, MOST_SHARDS + 1).plain())


@pytest.mark.parametrize(
    "how", ["grown", "rewritten", "of another size", "gone", "in another folder", "the same"]
)
def test_inputs_are_held_against_their_record(save, folder, monkeypatch, how):
    for i in range(2):
        save(f"x{i}.npy", np.full((2, 3), float(i)))
    every = ["x0.npy", "x1.npy"]
    made = [made_part((k, 2), every, [every[k]], {}) for k in range(2)]
    if how == "grown":
        save("x2.npy", np.ones((2, 3)))
        made[1] = made_part((1, 2), [*every, "x2.npy"], ["x1.npy"], {})
    elif how == "rewritten":
        save("x0.npy", np.full((2, 3), 7.0))
    elif how == "of another size":
        save("x0.npy", np.ones((3, 3)))
    elif how == "gone":
        Path("x0.npy").unlink()
    elif how == "in another folder":
        Path("other").mkdir()
        monkeypatch.chdir("other")
        save("x0.npy", np.full((2, 3), 7.0))
    if how in {"gone", "in another folder", "the same"}:
        assert check(made)[1] == []
        return
    said = "2 inputs|3 inputs" if how == "grown" else "x0.npy has changed since it was read"
    with pytest.raises(FileError, match=said):
        check(made)
