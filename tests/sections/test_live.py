"""What reports of a live model say of what was looked at, and of the gap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncli.model import BatchNormModule, BatchNormState
from bncli.model.capture import Capture, OutputSums, Propagation, WatchedLayer
from bncli.moments.batches import BatchSums
from bncli.sections.live import (
    gap_line,
    live_facts,
    live_subject,
    momentum_of,
    weights_path,
)

TRAINING, EVAL, RENEWED = Propagation.TRAINING, Propagation.EVAL, Propagation.RENEWED


def sums(channels: int, calls: int, *, per_sample: bool = False):
    pool = BatchSums(channels, per_sample=per_sample)
    for seed in range(calls):
        pool.add(np.random.default_rng(seed).normal(size=(4, channels, 3)).astype(np.float32))
    return pool.result()


def layer(name: str, order: int, channels: int, batches: int, calls: int = 1) -> WatchedLayer:
    seen = dict.fromkeys((TRAINING, EVAL, RENEWED), sums(channels, batches * calls))
    return WatchedLayer(
        name, order, channels, state=BatchNormState(name) if order else None, calls=calls, seen=seen
    )


@pytest.fixture
def capture():
    """Two batches through two layers, the second called twice; a gap of 0.6 over a floor of 0.2."""
    apart = {EVAL: 0.36 * 50, RENEWED: 0.04 * 50}
    outputs = (OutputSums("", 8, np.zeros(2), np.array([20.0, 30.0]), apart),)
    layers = (layer("input", 0, 3, 2), layer("bn1", 1, 5, 2), layer("bn2", 2, 7, 2, calls=2))
    source = {"model": "net.py:Net", "checkpoint": {"path": "net.pth", "part": "ema"}}
    return Capture(layers, outputs, source=source | {"data": ["a.npy", "b.npy"], "device": "cuda"})


def test_the_facts(capture):
    facts = live_facts(capture)
    assert facts["layers"] == 2
    assert facts["batches"] == 2
    assert facts["values"] == 2 * 4 * 3 * (5 + 2 * 7)
    assert facts["modes"] == ["training", "eval"]
    assert facts["gap"] == pytest.approx(0.6)
    assert facts["gap_floor"] == pytest.approx(0.2)
    assert facts["ratio"] == pytest.approx(3)


def test_batches_without_an_input_are_those_of_the_layers(capture):
    assert live_facts(replace(capture, layers=capture.norms))["batches"] == 2
    per_sample = replace(
        capture.norms[0], per_sample=True, seen={EVAL: sums(5, 3, per_sample=True)}
    )
    assert live_facts(replace(capture, layers=(per_sample,)))["batches"] == 0


def test_a_floor_of_nothing_has_no_ratio(capture):
    (output,) = capture.outputs
    capture = replace(capture, outputs=(replace(output, apart={EVAL: 18.0, RENEWED: 0.0}),))
    assert live_facts(capture)["gap_floor"] == 0
    assert capture.ratio is None
    assert "in all layers leave 0, its floor, because" in gap_line(capture)


def test_the_subject_names_the_model_its_weights_and_the_data(capture):
    assert live_subject(capture) == (
        "net.py:Net  net.pth::ema  2 BatchNorm layers, 12 channels",
        "a.npy, b.npy  2 batches, 8 samples  on cuda",
    )
    built = replace(capture, source={"model": "net.py:Net", "data": ["a.npy"], "device": "cpu"})
    assert live_subject(built) == (
        "net.py:Net  weights as built  2 BatchNorm layers, 12 channels",
        "a.npy  2 batches, 8 samples",
    )


def test_the_subject_of_what_was_recorded_in_python(capture):
    source = {"class": "net.Net", "recorded": True}
    assert live_subject(replace(capture, source=source)) == (
        "net.Net  as it ran in Python  2 BatchNorm layers, 12 channels",
        "2 batches, 8 samples",
    )
    first, *rest = capture.layers
    seen = {TRAINING: sums(3, 3), EVAL: sums(3, 1)}
    modes = replace(capture, source=source, layers=(replace(first, seen=seen), *rest))
    assert live_subject(modes)[1] == "training: 3 batches, 12 samples; eval: 1 batch, 4 samples"
    alone = replace(capture, source=source, layers=capture.norms)
    assert live_subject(alone)[1] == "2 batches"


def test_the_gap_in_a_line(capture):
    said = "gap between train() and eval(): 0.6 std of the output"
    assert gap_line(capture) == (
        f"{said}; new statistics in all layers leave 0.2, its floor, because training "
        "normalises each batch by itself"
    )
    frozen = replace(capture.layers[1], frozen=True)
    some = replace(capture, layers=(capture.layers[0], frozen, capture.layers[2]))
    assert "in all layers that are not frozen leave 0.2" in gap_line(some)
    (output,) = capture.outputs
    alone = replace(capture, outputs=(replace(output, apart={EVAL: 18.0}),))
    assert gap_line(alone) == f"{said}; its floor was not measured"
    same = replace(capture, outputs=(replace(output, apart={EVAL: 0.0, RENEWED: 0.0}),))
    assert gap_line(same) == "the outputs of train() and eval() are the same"


def test_an_unknown_gap_says_why(capture):
    unknown = "the gap between train() and eval() is not known: "
    bare = replace(capture, outputs=())
    assert (
        gap_line(replace(bare, no_gap="the output is a text")) == f"{unknown}the output is a text"
    )
    assert gap_line(replace(bare, refused_training="Expected more than 1 value")) == (
        f"{unknown}BatchNorm cannot run in training mode on these batches"
    )
    assert gap_line(bare) == f"{unknown}the outputs were not captured"
    (output,) = capture.outputs
    still = replace(output, squares=np.zeros(2))
    assert gap_line(replace(capture, outputs=(still,))) == (
        f"{unknown}the outputs in training mode do not vary"
    )
    for odd in (
        replace(output, apart={EVAL: float("nan")}),
        replace(output, squares=np.array([1, np.inf])),
    ):
        assert gap_line(replace(capture, outputs=(odd,))) == (
            f"{unknown}the outputs hold NaN or Inf"
        )


def test_the_momentum_of_a_layer(capture):
    bn1 = capture.norms[0]
    module = BatchNormModule("BatchNorm2d", eps=1e-3, momentum=None)
    assert momentum_of(bn1) is None
    assert momentum_of(replace(bn1, state=BatchNormState("bn1", module=module))) == "none"
    module = replace(module, momentum=0.25)
    assert momentum_of(replace(bn1, state=BatchNormState("bn1", module=module))) == 0.25


def test_where_the_weights_are_from(capture):
    assert weights_path(capture) == "net.pth"
    assert weights_path(replace(capture, source={})) == ""
