"""Values of the header are of the kind that was written, or the sentence says which is not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from bncli.errors import CorruptFileError
from bncli.loaders.statistics.fields import Fields, number, parsed, plain

HERE = Path("stats.npz")


def fields(**values):
    return Fields(HERE, "layers[1]", values)


@pytest.mark.parametrize("value", [0.1, 3, -0.0, math.inf, -math.inf, math.nan, None, 2**70])
def test_a_number_comes_back(value):
    text = json.dumps({"key": number(value)}, allow_nan=False)
    found = parsed(HERE, text.encode()).number("key")
    assert type(found) is type(value)
    assert found == value or (math.isnan(value) and math.isnan(found))
    assert found is None or math.copysign(1, found) == math.copysign(1, value)


def test_plain_is_what_json_has():
    given = {"a": (1, [math.nan, "x"]), "b": {"c": None, 3: True}, "d": np.float64(0.5)}
    found = json.loads(json.dumps(plain(given), allow_nan=False))
    assert found == {"a": [1, ["nan", "x"]], "b": {"c": None, "3": True}, "d": 0.5}


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (Fields.text, 3),
        (Fields.flag, 1),
        (Fields.whole, True),
        (Fields.whole, -1),
        (Fields.whole, 2.0),
        (Fields.number, "1"),
        (Fields.number, False),
        (Fields.texts, ["a", 1]),
        (Fields.texts, "ab"),
        (Fields.inner, []),
        (lambda given, key: list(given.each(key)), [{}, 3]),
        (lambda given, key: given.optional(key, bool), 0),
    ],
)
def test_a_value_of_another_kind_is_refused(read, value):
    with pytest.raises(
        CorruptFileError, match=r"^stats\.npz: layers\[1\]\.key.* in its bncli\.json"
    ):
        read(fields(key=value), "key")
    with pytest.raises(CorruptFileError, match=r"layers\[1\]\.key is missing in its bncli\.json"):
        read(fields(), "key")


def test_a_long_value_is_cut_in_the_sentence():
    with pytest.raises(CorruptFileError) as caught:
        fields(key="\x1b[31m" * 1000).whole("key")
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()
