"""Captures to write, read and merge, and how two of them are compared: bit by bit."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import numpy as np

from bncli.model import BatchNormModule, BatchNormState
from bncli.model.capture import (
    Capture,
    InputKernel,
    OutputSums,
    Propagation,
    WatchedLayer,
)
from bncli.model.part import Part
from bncli.moments.batches import BatchSums

TRAINING, EVAL, RENEWED = Propagation.TRAINING, Propagation.EVAL, Propagation.RENEWED

NAMES = ("input", "", "features.0/bn::1", "слой.norm\n\x1b[31m", "b" * 300, "layer1.bn")
SIZES = (3, 1, 5, 2, 4, 7)
ODD = np.array([np.nan, -np.inf, -0.0, 5e-324, 1e308, np.inf, 0.1])


def sums_of(batches, num_features):
    """The sums of batches of shape (N, num_features, ...)."""
    sums = BatchSums(num_features)
    for batch in batches:
        sums.add(batch)
    return sums.result()


def table_of(batches):
    """What `per_batch` has of batches of shape (N, C, ...)."""
    sums = BatchSums(batches[0].shape[1], per_batch=True)
    for batch in batches:
        sums.add(batch)
    return sums.batches()


def module(**given):
    return BatchNormModule("BatchNorm2d", 1e-5, 0.1, True, True, True, **given)


def state(name, size, rng, dtype="float32", **given):
    values = {leaf: rng.standard_normal(size).astype(dtype) for leaf in ("weight", "bias")}
    values |= {
        "running_mean": rng.standard_normal(size).astype(dtype),
        "running_var": rng.random(size).astype(dtype),
    }
    kept = {"num_batches_tracked": 7, "dtype": dtype, "module": module()} | values | given
    return BatchNormState(name, **kept)


def batches(rng, size, number=3):
    return [rng.standard_normal((4, size, 2, 3)).astype(np.float32) for _ in range(number)]


def odd_capture(seed=0):
    """A capture with something unusual in every field."""
    rng = np.random.default_rng(seed)
    spoilt = batches(rng, 5)
    spoilt[1][0, 1, 0, 0] = np.nan
    spoilt[2][0, 2, 0, 1] = -np.inf
    states = [
        None,
        state("", 1, rng, "float64", weight=None, bias=None, module=None),
        state(
            "bn",
            5,
            rng,
            running_mean=np.float32([np.nan, -np.inf, -0.0, 1e-45, 0.1]),
            num_batches_tracked=2**60 + 1,
        ),
        state("x", 2, rng, "float16", running_var=None, num_batches_tracked=np.nan),
        state("y", 4, rng, weight=np.float32([-0.0, np.nan, np.inf, 1]), num_batches_tracked=None),
        state("layer1.bn", 7, rng, "float64", bias=ODD, module=module(has_momentum=False)),
    ]
    states[3] = replace(states[3], dtype=None)
    states[4] = replace(
        states[4], module=BatchNormModule("Äct", np.inf, None, None, None, None), dtype="bfloat16"
    )
    seen = [
        {TRAINING: sums_of(batches(rng, 3), 3), EVAL: sums_of(batches(rng, 3), 3)},
        {TRAINING: sums_of(batches(rng, 1), 1)},
        {each: sums_of(spoilt, 5) for each in Propagation},
        {},
        {RENEWED: sums_of([np.full((1, 4), -0.0)], 4)},
        {EVAL: sums_of(batches(rng, 7), 7)},
    ]
    kernels = [None] * 6
    kernels[2] = InputKernel(rng.standard_normal((5, 3)), None, padded=True)
    kernels[5] = InputKernel(rng.standard_normal((7, 3)), ODD)
    flags = [{}] * 6
    flags[2] = {"frozen": True, "calls": 3}
    flags[3] = {"in_training": True, "per_sample": True, "calls": 0}
    layers = tuple(
        WatchedLayer(name, order, size, own, kernel=kernel, seen=what, **given)
        for order, (name, size, own, kernel, what, given) in enumerate(
            zip(NAMES, SIZES, states, kernels, seen, flags, strict=True)
        )
    )
    return Capture(
        layers,
        (
            OutputSums("0", 12, np.array([1.0, np.nan]), np.array([0.0, np.inf]), {EVAL: np.inf}),
            OutputSums("a/b", 3, ODD, np.abs(ODD), {EVAL: 0.1 + 0.2, RENEWED: 1e-300}),
        ),
        still_training=("x", "y.z"),
        dropout=("drop",),
        rounds=4,
        renewals=3,
        settled=False,
        weights_moved=True,
        refused_training="one value a channel ü",
        no_gap="no floating-point output",
        uncalled=("aux.bn",),
        left_out=("16",),
        source={"model": "a.py:Net", "seed": 3, "data": ["x.npy"], "torch": {"threads": 2}},
        fingerprint={
            "weights": "12ab34cd",
            "running_statistics": "00000000",
            "checkpoint": "0badcafe 12ab34ce",
        },
        part=Part(2, 5),
        per_batch={
            (NAMES[2], TRAINING): table_of(spoilt),
            (NAMES[5], EVAL): table_of(batches(rng, 7)),
        },
    )


def model_capture(parts, *, shard=(0, 1), **given):
    """What a model of two layers showed of these batches of shape (N, 3, H, W)."""
    rng = np.random.default_rng(7)
    layers = [WatchedLayer("input", 0, 3, seen={TRAINING: sums_of(parts, 3)})]
    for order, (name, factor) in enumerate((("stem.bn", 2), ("head.bn", -3)), 1):
        seen = {each: sums_of([x * factor for x in parts], 3) for each in (TRAINING, EVAL)}
        layers.append(WatchedLayer(name, order, 3, state(name, 3, rng), seen=seen))
    values = np.concatenate(parts).astype(np.float64)
    mean = values.mean((0, 2, 3))
    squares = np.square(values - mean[:, np.newaxis, np.newaxis]).sum((0, 2, 3))
    count = values.size // 3
    apart = {EVAL: float(np.square(values).sum()), RENEWED: float(np.abs(values).sum())}
    return replace(
        Capture(
            tuple(layers),
            (OutputSums("0", count, mean, squares, apart),),
            fingerprint={"weights": "12ab34cd"},
            part=Part(*shard),
            per_batch={("stem.bn", TRAINING): table_of([x * 2 for x in parts])},
        ),
        **given,
    )


def unlike(one, other, where="capture"):
    """Where two values are not the same, bit by bit; None where they are."""
    if type(one) is not type(other) and not {type(one), type(other)} <= {int, np.int64}:
        return f"{where}: {type(one)} and {type(other)}"
    if is_dataclass(one):
        pairs = [(f.name, getattr(one, f.name), getattr(other, f.name)) for f in fields(one)]
    elif isinstance(one, dict):
        if set(one) != set(other):
            return f"{where}: {sorted(map(str, one))} and {sorted(map(str, other))}"
        pairs = [(key, one[key], other[key]) for key in one]
    elif isinstance(one, (tuple, list)):
        if len(one) != len(other):
            return f"{where}: {len(one)} and {len(other)} items"
        pairs = [(i, *both) for i, both in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, np.ndarray):
        same = one.dtype == other.dtype and one.shape == other.shape
        return None if same and one.tobytes() == other.tobytes() else f"{where}: {one} and {other}"
    else:
        same = one == other or [repr(one), repr(other)] == ["nan", "nan"]
        return None if same else f"{where}: {one!r} and {other!r}"
    found = (unlike(a, b, f"{where}.{key}") for key, a, b in pairs)
    return next(filter(None, found), None)
