"""Files copied with some of their bytes replaced, whole or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.errors import FileError
from bncli.files import edits
from bncli.files.edits import Edit, check_edited, write_edited


@st.composite
def edited(draw):
    """Bytes, edits of them in any order, and the bytes that those make."""
    old = draw(st.binary(max_size=200))
    ends = sorted(draw(st.sets(st.integers(0, len(old)), max_size=12)))
    changes = [
        Edit(start, draw(st.binary(min_size=stop - start, max_size=stop - start)))
        for start, stop in zip(ends, ends[1:], strict=False)
        if draw(st.booleans())
    ]
    new = bytearray(old)
    for offset, data in changes:
        new[offset : offset + len(data)] = data
    return old, draw(st.permutations(changes)), bytes(new)


@given(edited(), st.integers(1, 40))
def test_the_bytes_of_the_edits_are_replaced_and_no_others(tmp_path_factory, case, chunk):
    old, changes, new = case
    folder = tmp_path_factory.mktemp("edits")
    (folder / "old").write_bytes(old)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edits, "CHUNK", chunk)
        write_edited(folder / "old", folder / "new", changes)
        assert (folder / "new").read_bytes() == new
        check_edited(folder / "old", folder / "new", changes)
    assert (folder / "old").read_bytes() == old
    assert sorted(path.name for path in folder.iterdir()) == ["new", "old"]


@given(edited(), st.integers(1, 40), st.data())
def test_a_byte_that_is_not_as_it_should_be_is_named(tmp_path_factory, case, chunk, data):
    old, changes, new = case
    if not new:
        return
    wrong = data.draw(st.sets(st.integers(0, len(new) - 1), min_size=1, max_size=3))
    folder = tmp_path_factory.mktemp("edits")
    (folder / "old").write_bytes(old)
    (folder / "new").write_bytes(bytes(b ^ (i in wrong) for i, b in enumerate(new)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edits, "CHUNK", chunk)
        with pytest.raises(FileError, match=f"its byte {min(wrong)} d"):
            check_edited(folder / "old", folder / "new", changes)
