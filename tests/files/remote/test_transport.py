"""A file by its driver, and what is tried again."""

from __future__ import annotations

import pytest

from bncli.files.remote import failures
from bncli.files.remote.failures import AbsentError, ChangedError, NoRangesError
from bncli.files.remote.transport import DriverFile, State, persistently


def test_a_file_in_memory(memory, tmp_path):
    memory.pipe("/x", b"0123456789")
    file = DriverFile(memory, "/x")
    state, head = file.begin()
    assert (state.size, head) == (10, b"")
    assert file.size() == 10
    assert file.fetch(2, 5, state) == b"234"
    target = tmp_path / "x"
    assert file.download(target) == state
    assert target.read_bytes() == b"0123456789"
    state.check(file.state())
    with pytest.raises(ChangedError):
        file.fetch(8, 12, state)
    memory.pipe("/x", b"abcdefghij")
    with pytest.raises(ChangedError):
        state.check(file.state())


def test_a_folder_and_a_file_of_unknown_size(memory):
    memory.pipe("/run/x", b"1")
    with pytest.raises(IsADirectoryError):
        DriverFile(memory, "/run").begin()

    class Vague:
        def info(self, path):
            return {"size": None, "type": "file"}

    with pytest.raises(NoRangesError):
        DriverFile(Vague(), "x").begin()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (State(1, "a"), State(1, "a"), True),
        (State(1, "a"), State(1), True),
        (State(1, "a"), State(1, "b"), False),
        (State(1, "a"), State(2, "a"), False),
    ],
)
def test_what_counts_as_changed(one, other, same):
    if same:
        one.check(other)
    else:
        with pytest.raises(ChangedError):
            one.check(other)


def test_what_may_pass_is_tried_again(impatient):
    def failing(*errors):
        left = list(errors)

        def call():
            tries.append(1)
            if left:
                raise left.pop(0)
            return "done"

        return call

    tries: list[int] = []
    busy = ConnectionResetError()
    assert persistently(failing(busy, busy)) == "done"
    assert len(tries) == failures.TRIES
    tries.clear()
    with pytest.raises(ConnectionResetError):
        persistently(failing(busy, busy, busy))
    assert len(tries) == failures.TRIES
    tries.clear()
    with pytest.raises(ValueError):
        persistently(failing(ValueError()))
    with pytest.raises(AbsentError):
        persistently(failing(FileNotFoundError()))
    assert len(tries) == 2
