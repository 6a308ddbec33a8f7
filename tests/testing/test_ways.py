"""Ways are changed by names."""

from __future__ import annotations

import pytest

from bncli.testing.ways import PYTORCH, Forward, Way


def test_changes_are_made_by_path():
    way = PYTORCH.changed({"train.ddof": 1, "train.root": "outside", "loss": "float16"})
    assert way == Way(train=Forward(ddof=1, root="outside"), loss="float16")
    assert Way() == PYTORCH


@pytest.mark.parametrize("path", ["train.bogus", "bogus"])
def test_a_name_that_is_none_is_an_error(path):
    with pytest.raises(TypeError, match="bogus"):
        PYTORCH.changed({path: 1})
