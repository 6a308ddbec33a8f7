"""Mistakes of an output in training, each planted alone."""

from __future__ import annotations

import pytest

from tests.verify.departures.planted import OUTPUT, case, named


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mistake", OUTPUT)
def test_an_output(mistake, dtype):
    causes, failed = named(mistake, case(dtype=dtype))
    assert "output" in failed
    assert causes["output"] == OUTPUT[mistake]
