"""What an order of values tells is what NumPy tells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.rulebook.order import among, distinct, median, middle_of


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_median_is_numpys(values):
    assert median(np.array(values)) == pytest.approx(np.median(values), rel=1e-12, abs=1e-300)


@given(st.lists(st.sampled_from([0.0, -1.0, 1e-45, 3.5, np.inf, -np.inf, 2.0]), max_size=30))
def test_what_an_order_tells_is_what_numpy_tells(values):
    array = np.array(values, np.float32)
    assert np.array_equal(distinct(array), np.unique(array))
    if values:
        some = np.unique(array[::2])
        assert np.array_equal(among(array, some), np.isin(array, some))
    assert not among(array, array[:0]).any()


@given(st.lists(st.none() | st.floats(-1e6, 1e6), max_size=9))
def test_the_middle_is_that_of_what_is_known(values):
    known = [value for value in values if value is not None]
    if len(known) % 2:
        assert middle_of(values) == np.median(known)
    elif known:
        assert middle_of(values) == np.quantile(known, 0.5, method="higher")
    else:
        assert middle_of(values) is None
