"""The relations that have an eps or a constant in them."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.changes.states.conventions import find
from bncli.changes.states.conventions.relations import CONVENTIONS
from bncli.report import Certainty
from bncli.state_dict import VECTORS
from tests.changes.pairs import NO_FILES, pair, side
from tests.changes.states.conventions.layers import made, wide_layer


def added(constant):
    return lambda layer: {"running_var": layer["running_var"] + constant}


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 2e-5, 1e-4, 1e-2, 4e-5])
@pytest.mark.parametrize("forward", [True, False])
def test_an_eps_in_the_variance_is_known(eps, forward):
    found = find(made(added(eps), forward=forward), NO_FILES)
    assert found.what == (
        f"eps {eps:g} is in the variance of the {'second' if forward else 'first'} file"
    )
    assert found.numbers["cause"] == "eps-in-variance"
    assert found.numbers["eps"] == eps
    assert found.numbers["odd_file"] == ("second" if forward else "first")
    assert found.certainty is Certainty.CERTAIN


def test_the_layers_own_eps_is_tried():
    layer = wide_layer()
    other = {**layer, "running_var": layer["running_var"] + 3e-4}
    found = find(pair(side(layer, eps=3e-4), side(other)), NO_FILES)
    assert found.numbers["eps"] == 3e-4


def test_the_difference_of_two_eps_is_named():
    found = find(made(added(1e-3 - 1e-5)), NO_FILES)
    assert found.certainty is Certainty.LIKELY
    assert found.numbers["eps"] is None
    assert "two usual eps, 0.001 and 1e-05" in found.detail


def test_any_constant_is_said_as_one():
    found = find(made(added(0.03)), NO_FILES)
    assert found.what == "the variance is larger by 0.03 in the second file"
    assert found.numbers["constant"] == pytest.approx(0.03)
    assert found.certainty is Certainty.LIKELY


def test_an_eps_that_float16_rounds_away_is_not_claimed():
    assert find(made(added(1e-5), "float16"), NO_FILES) is None


@pytest.mark.parametrize("eps", [0.0, 1e-5, 1e-3, 0.07])
def test_the_eps_of_an_inverse_standard_deviation_is_found(eps):
    found = find(
        made(lambda layer: {"running_var": 1 / np.sqrt(layer["running_var"] + eps)}), NO_FILES
    )
    assert found.what == (
        "running_var holds the inverse standard deviation in the second file, "
        f"{f'eps {eps:g}' if eps else 'without eps'}"
    )
    assert found.numbers["eps"] == pytest.approx(eps, abs=1e-6)


def test_an_eps_that_cannot_be_told_is_not_said():
    found = find(
        made(
            lambda layer: {
                "running_var": 1 / np.sqrt(layer["running_var"] + 1e-5),
            },
            "float16",
        ),
        NO_FILES,
    )
    assert found.what == "running_var holds the inverse standard deviation in the second file"
    assert found.numbers["eps"] is None
    assert "1 / sqrt(running_var + eps)" in found.detail


def test_an_absolute_weight_is_that_of_inplace_abn():
    def folded(layer):
        return {"weight": np.abs(layer["weight"]) + 1e-5}

    layer = wide_layer()
    layer["weight"][::3] *= -1
    found = find(pair(side(layer), side({**layer, **folded(layer)})), NO_FILES)
    assert found.numbers["cause"] == "weight-absolute"
    assert found.numbers["eps"] == 1e-5


def test_weights_that_decayed_alone_are_no_convention():
    assert find(made(lambda layer: {"weight": layer["weight"] * 0.9}), NO_FILES) is None


def test_the_table_names_each_cause_once():
    causes = [each.relation.cause for each in CONVENTIONS]
    assert len(set(causes)) == len(causes)
    for each in CONVENTIONS:
        assert set(each.relation.leaves) <= set(VECTORS)
        assert set(each.relation.shown_by) <= set(each.relation.leaves)
