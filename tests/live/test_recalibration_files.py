"""New running statistics from statistics files: those of the live pass, for any order of parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncli.errors import UsageError
from bncli.live.recalibration import recalibrated_from
from bncli.live.session import Session
from bncli.loaders.statistics import merge_captures, open_statistics, write_statistics
from bncli.model.capture import Propagation
from bncli.model.recalibration import Average
from tests.live.recalibrating import (
    BATCHES,
    TRAINING,
    UNEVEN,
    of_other_weights,
    recalibration,
    wish,
    wrong,
)
from tests.live.small import data, made

# ---------------------------------------------- from a statistics file


def saved(net, tensors, path, **how):
    session = Session(net, data(tensors))
    with session.open():
        write_statistics(path, session.capture(renew=False, **how), "capture")
    return path


@pytest.mark.parametrize("framework", ["pytorch", "flax"])
@pytest.mark.parametrize("average", Average)
def test_a_statistics_file_gives_the_bits_of_the_live_pass(tmp_path, average, framework):
    net = wrong(of_other_weights)
    wished = wish(framework, average=average, **TRAINING)
    live = recalibration(net, UNEVEN, wished)
    path = saved(net, UNEVEN, tmp_path / "stats.npz", per_batch=wished.batch_by_batch)
    filed = recalibrated_from(open_statistics(path), wished)
    assert (filed.rounds, filed.checked, filed.gap_after) == (1, False, None)
    assert_same_bits(live, filed)


def assert_same_bits(one, other):
    for a, b in zip(one.layers, other.layers, strict=True):
        assert (a.name, a.values, a.samples, a.batches) == (b.name, b.values, b.samples, b.batches)
        for field in ("mean", "var", "error"):
            assert getattr(a, field).tobytes() == getattr(b, field).tobytes()


@pytest.mark.parametrize("average", Average)
def test_parts_in_any_order_give_the_same_bits(tmp_path, average):
    net, parts = made(tensors=BATCHES), [UNEVEN[:2], UNEVEN[2:3], UNEVEN[3:]]
    paths = [
        saved(net, part, tmp_path / f"{number}.npz", per_batch=True)
        for number, part in enumerate(parts)
    ]

    def of(order):
        files = [paths[number] for number in order]
        merged = merge_captures(files, [open_statistics(path) for path in files])
        return recalibrated_from(merged, wish(average=average))

    first = of([0, 1, 2])
    for order in ([2, 1, 0], [1, 0, 2], [2, 0, 1]):
        assert_same_bits(first, of(order))
    if average is not Average.EMA:
        whole = recalibration(net, UNEVEN, wish(average=average, **TRAINING))
        for one, other in zip(first.layers, whole.layers, strict=True):
            np.testing.assert_allclose(one.mean, other.mean, rtol=1e-12, atol=1e-13)
            np.testing.assert_allclose(one.var, other.var, rtol=1e-12)


def captured(net, tensors, **how):
    session = Session(net, data(tensors))
    with session.open():
        return session.capture(renew=False, **how)


def test_a_file_without_batches_gives_no_ema():
    with pytest.raises(UsageError, match=r"--average ema needs every batch's own .* --per-batch"):
        recalibrated_from(captured(made(), BATCHES), wish(average=Average.EMA))
    with pytest.raises(UsageError, match="--average batches needs every batch's own"):
        recalibrated_from(captured(made(), BATCHES), wish("flax", average=Average.BATCHES))


def test_a_capture_of_weights_that_moved_is_refused():
    moved = replace(captured(made(), BATCHES), weights_moved=True)
    with pytest.raises(UsageError, match="weights of the model changed"):
        recalibrated_from(moved, wish())


def test_a_capture_of_evaluation_alone_is_refused():
    capture = captured(made(), BATCHES)
    layers = tuple(
        replace(each, seen={Propagation.EVAL: each.seen[Propagation.EVAL]})
        for each in capture.layers
    )
    with pytest.raises(UsageError, match="nothing of the model in train mode"):
        recalibrated_from(replace(capture, layers=layers), wish())
