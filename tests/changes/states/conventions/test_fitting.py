"""How much room rounding gets, and what is too little to show a relation."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from bncli.changes.states.conventions.fitting import Relation, Room, fit, middle, rooms, shown
from tests.changes.pairs import pair, random_layer, side
from tests.changes.states.conventions.layers import made

DOUBLED = Relation("doubled", ("running_var",), lambda layer, _: ((2 * layer.var,),))


def test_the_room_counts_what_is_stored_and_what_is_computed():
    one = np.ones(1)
    assert Room("float32", 1, 0)(one) == pytest.approx(2.0**-23)
    assert Room("float32", 1, 4)(one) == pytest.approx(3 * 2.0**-23)
    assert Room("float16", 1, 4)(one) == pytest.approx(2.0**-10 + 2 * 2.0**-23, rel=1e-3)
    assert Room("float64", 3, 0)(one) == pytest.approx(2 * 2.0**-52)


def test_values_that_went_through_a_narrower_dtype_get_its_room():
    layer = random_layer()
    halves = {leaf: values.astype(np.float16) for leaf, values in layer.items()}
    assert [room.dtype for room in rooms(pair(layer, layer), DOUBLED)] == ["float32"]
    both = pair(side(halves), side(layer))
    assert [room.dtype for room in rooms(both, DOUBLED)] == ["float32", "float16"]


@pytest.mark.parametrize("forward", [True, False])
def test_a_relation_is_found_in_its_direction(forward):
    both = made(lambda layer: {"running_var": 2 * layer["running_var"]}, forward=forward)
    found = fit(DOUBLED, both)
    assert found.forward is forward
    assert found.where == ("second" if forward else "first")
    assert found.residual == 0


def test_one_channel_that_is_off_refutes_it():
    def nearly(layer, off):
        var = 2 * layer["running_var"]
        var[3] *= 1 + off
        return {"running_var": var}

    assert fit(DOUBLED, made(partial(nearly, off=1e-8))) is not None
    assert fit(DOUBLED, made(partial(nearly, off=1e-5))) is None


def test_a_channel_that_is_nan_in_one_file_refutes_it():
    layer = random_layer()
    other = {**layer, "running_var": 2 * layer["running_var"]}
    other["running_var"][2] = np.nan
    assert fit(DOUBLED, pair(layer, other)) is None
    layer["running_var"][2] = np.nan
    assert fit(DOUBLED, pair(layer, other)) is not None


def test_numbers_that_fit_equally_well_give_none():
    two = Relation(
        "added",
        ("running_var",),
        lambda layer, c: ((layer.var, c * 1e-9, 1.0),),
        lambda *_: ([1.0, 2.0],),
        once=True,
    )
    found = fit(two, made(lambda layer: {"running_var": layer["running_var"] + 1}))
    assert found.values == (1.0, 2.0)
    assert found.value is None


def test_the_middle_of_what_values_may_be():
    room = np.array([0.1, 0.1])
    assert middle(np.array([1.0, 1.1]), room) == pytest.approx(1.05)
    assert np.isnan(middle(np.array([1.0, 1.3]), room))
    assert np.isnan(middle(np.array([np.nan, np.inf]), room))


def test_three_channels_have_to_move_clearly_to_different_values():
    before, room = np.zeros(4), np.full(4, 1e-3)
    assert shown(before, np.array([1.0, 2.0, 3.0, 0.0]), room)
    assert not shown(before, np.array([1.0, 2.0, 2.001, 0.0]), room)
    assert not shown(before, np.array([1.0, 2.0, 0.003, 0.0]), room)


def test_a_relation_is_tried_where_its_tensors_moved():
    assert DOUBLED.moves(("running_var",))
    assert not DOUBLED.moves(())
    assert not DOUBLED.moves(("running_mean", "running_var"))
    pairs = Relation("two", ("weight", "bias"), lambda *_: ((), ()), shown_by=("weight",))
    assert pairs.moves(("weight",))
    assert not pairs.moves(("bias",))
