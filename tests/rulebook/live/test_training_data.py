"""The means of the training data follow from the first layer."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.rulebook.live.measures import measures
from tests.rulebook.live.captures import (
    batches_of,
    capture,
    convolved,
    source,
    stored_of,
    watched,
)


def test_the_training_data_follow_from_the_first_layer():

    rng = np.random.default_rng(7)
    data = [rng.uniform(0, 1, (16, 3, 6, 6)) * [[[0.5]], [[1]], [[2]]] for _ in range(8)]
    kernel, bias = rng.normal(size=(16, 3)), rng.normal(size=16)
    inside, read = convolved(data, kernel, bias)
    mean, var = stored_of(inside)
    shown = [255 * batch for batch in data]
    outside, _ = convolved(shown, kernel, bias)
    layer = watched("bn", outside, mean=mean, var=var, kernel=read)
    (found,) = measures(capture(source(shown), layer))
    assert found.origin.residual < 1e-6
    assert found.origin.means.tolist() == pytest.approx(
        np.mean([batch.mean((0, 2, 3)) for batch in data], 0).tolist(), rel=1e-6
    )
    whole = np.concatenate(shown)
    apart = (whole.mean((0, 2, 3)) - found.origin.means) / whole.std((0, 2, 3))
    assert found.origin.apart == pytest.approx(np.sqrt((apart**2).mean()))
    other = watched("bn", outside, mean=rng.normal(size=16), var=var, kernel=read)
    (wrong,) = measures(capture(source(shown), other))
    assert wrong.origin.residual > 0.3


@pytest.mark.parametrize("outputs", [3, 4])
def test_few_output_channels_tell_nothing_of_the_training_data(outputs):

    data = batches_of(channels=3)
    made, read = convolved(data, np.random.default_rng(0).normal(size=(outputs, 3)))
    (found,) = measures(capture(source(data), watched("bn", made, kernel=read)))
    assert found.origin is None


def test_a_layer_that_reads_the_input_stores_its_means():
    data = batches_of(mean=1.0)
    layer = watched("bn", data, mean=[1, 1, 1, 1, 3])
    (found,) = measures(capture(source(data), layer))
    assert found.origin.means.tolist() == [1, 1, 1, 1, 3]
    assert found.origin.residual == 0
    assert found.origin.apart == pytest.approx(2 / np.sqrt(5), abs=0.03)


def test_nothing_is_said_where_the_data_themselves_do_not_fit_the_kernel():
    """As where a stride meets a pattern of its own period: the kernel sums do not give the mean."""
    rng = np.random.default_rng(7)
    data = [rng.uniform(0, 1, (16, 3, 6, 6)) for _ in range(8)]
    inside, read = convolved(data, rng.normal(size=(16, 3)))
    pattern = rng.normal(size=(16, 1, 1))
    odd = [batch + pattern for batch in inside]
    (found,) = measures(capture(source(data), watched("bn", odd, kernel=read)))
    assert found.origin is None
    (plain,) = measures(capture(source(data), watched("bn", inside, kernel=read)))
    assert plain.origin is not None
