"""Every planted difference is named first; what cannot be told apart is said; nobody is blamed."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
import torch

from bncli.backends import BackendName, backend
from bncli.backends.interface import BatchNormCall
from bncli.errors import TensorError
from bncli.verify.identify.hypotheses import EPS, Hypothesis, Known
from bncli.verify.identify.output import identify_output
from bncli.verify.identify.pair import ArraySource
from tests.configurations import configuration
from tests.sampling import sampled
from tests.verify.identify.planted import planted

TORCH = backend(BackendName.TORCH)

SHAPES = [(24, 6), (1200, 3), (6, 6, 5, 4), (2, 4, 3, 3, 5)]


def source(values: np.ndarray, dtype: str | None = None) -> ArraySource:
    return ArraySource(values, dtype or values.dtype.name)


@cache
def all_identified(dtype, shape, sixth=None):
    """Every planted difference, or one of six of them, and what was found."""
    cases = list(planted(dtype, shape))
    return [
        (case, identify_output(source(case.x), source(case.y), 1, case.known))
        for case in (cases if sixth is None else cases[sixth::6])
    ]


def sixth_of(dtype, shape):
    """Another sixth of the matrix for each of its eight corners, so that every sixth is tried."""
    return (SHAPES.index(shape) + (0 if dtype == "float32" else 3)) % 6


WHOLE = pytest.mark.parametrize(
    "whole", [False, pytest.param(True, marks=pytest.mark.exhaustive)], ids=["a sixth", "all"]
)


@WHOLE
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_was_planted_is_named(dtype, shape, whole):
    """First; or, where this data does not tell it from a plainer one, among those that remain."""
    first = 0
    cases = all_identified(dtype, shape, None if whole else sixth_of(dtype, shape))
    for case, found in cases:
        assert found.explained, (case.name, found.best)
        explaining = [item.hypothesis for item in found.hypotheses if item.explains]
        told = [
            hypothesis
            for hypothesis in explaining
            if (hypothesis.mode, hypothesis.ddof, hypothesis.variant)
            == (case.mode, case.ddof, case.variant)
            and hypothesis.eps == pytest.approx(case.eps, rel=0.02 if case.variant else 1e-9)
        ]
        assert told, (case, found.best)
        if told[0] == explaining[0]:
            first += 1
        else:
            assert "as well: " in found.best, (case.name, found.best)
            assert re.search(r"would decide\.$", found.best)
            assert found.hypotheses[0].oddness < next(
                item.oddness for item in found.hypotheses if item.hypothesis == told[0]
            )
    assert first >= (0.85 if whole else 0.6) * len(cases)


@WHOLE
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_in_float64_nearly_all_is_told_for_certain(shape, whole):
    cases = all_identified("float64", shape, None if whole else sixth_of("float64", shape))
    certain = [
        found.confident and found.hypotheses[0].hypothesis.mode == case.mode
        for case, found in cases
        if "rounded" not in case.variant
    ]
    assert sum(certain) >= (0.9 if whole else 0.75) * len(certain)


def test_the_matrix_covers_every_hypothesis():
    """No eps, use of the state or of weight and bias, and no view is left out of the matrix."""
    from bncli.verify.identify import hypotheses

    cases = list(planted("float64", (6, 6, 5, 4)))
    variants = " ".join(case.variant for case in cases)
    odd = (hypotheses.OUTSIDE, hypotheses.FITTED, hypotheses.FRESH)
    for word in (*hypotheses.STORED, *hypotheses.BATCH, *hypotheses.AFFINE, *odd):
        assert word in variants
    assert {case.eps for case in cases} >= set(EPS)
    assert {case.mode for case in cases} == {
        "training", "eval", "LayerNorm", "InstanceNorm", "GroupNorm", "RMSNorm"
    }  # fmt: skip


def healthy(seed: int, largest: int = 5_000):
    """PyTorch's output of a random configuration, identified."""
    config = configuration(seed, largest=largest)
    run = TORCH.run(
        BatchNormCall(
            x=config.x,
            grad_output=np.zeros_like(config.x),
            dtype=config.dtype,
            parameter_dtype=config.parameter_dtype,
            channel_axis=config.channel_axis,
            settings=config.settings,
            weight=config.weight,
            bias=config.bias,
            running=config.running,
        )
    )
    running = config.running
    known = Known(
        config.weight,
        config.bias,
        running.running_mean if running else None,
        running.running_var if running else None,
        eps=config.settings.eps,
    )
    return config, identify_output(
        source(config.x, config.dtype),
        source(run.quantities["output"], config.dtype),
        config.channel_axis,
        known,
    )


@pytest.mark.parametrize("seed", sampled(range(50), lambda place: place < 15))
def test_a_correct_output_is_not_blamed(seed):
    config, found = healthy(seed)
    assert found.expected, found.best
    # A constant input tells nothing: its output is what the mean was rounded by.
    modes = {item.hypothesis.mode for item in found.hypotheses if item.fits}
    assert ("training" if config.settings.normalizes_with_batch else "eval") in modes


@pytest.mark.parametrize(
    ("seed", "largest"),
    [
        (380, 8_000), (744, 8_000), (832, 20_000), (729, 20_000), (852, 20_000), (893, 20_000),
        (951, 20_000), (975, 20_000),
    ],
)  # fmt: skip
def test_the_hard_ones_of_a_thousand(seed, largest):
    """Constant channels, rows whose digits PyTorch lost, statistics in half precision."""
    _, found = healthy(seed, largest)
    assert found.expected
    assert found.hypotheses[0].hypothesis.mode == "training"
    assert np.isfinite(found.hypotheses[0].max_abs_diff)


def test_what_nobody_made_is_not_explained():
    x = np.random.default_rng(0).normal(size=(16, 3))
    found = identify_output(source(x), source(np.tanh(x)), 1, Known())
    assert not found.explained
    assert not found.confident
    assert found.best.startswith("None of ")
    assert "is not a multiple of the input plus a constant" in found.best
    scaled = identify_output(source(x), source(7.7 * x + 0.3), 1, Known())
    assert not scaled.explained
    assert "In each channel it is a multiple of the input plus a constant" in scaled.best


def test_nothing_finite_is_nothing_compared():
    x = np.full((4, 2), np.nan)
    found = identify_output(source(x), source(x), 1, Known())
    assert (found.hypotheses, found.channels, found.expected) == ((), 0, False)


def test_a_broken_channel_does_not_hide_the_others():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 3))
    x[2, 1] = np.inf
    with np.errstate(invalid="ignore"):
        y = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3)
    found = identify_output(source(x), source(y), 1, Known())
    assert found.channels == 2
    assert found.hypotheses[0].hypothesis == Hypothesis("training", 0, 1e-3)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(TensorError, match="must be equal"):
        identify_output(source(np.zeros((4, 3))), source(np.zeros((4, 2))), 1, Known())


def test_a_constant_input_tells_little_and_blames_nobody():
    x = np.full((16, 2), 5.0)
    found = identify_output(source(x), source(np.zeros((16, 2))), 1, Known())
    assert found.expected


def test_the_sentence_says_the_contrast():
    """Its numbers are those of the two outputs themselves."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 4))
    mean, var = rng.normal(size=4), np.array([0.001, 1.0, 1.0, 2.0])
    y = (x - mean) / np.sqrt(var + 1e-3)
    plain = (x - mean) / np.sqrt(var + 1e-5)
    known = Known(running_mean=mean, running_var=var)
    found = identify_output(source(x), source(y), 1, known)
    off = np.abs(y - plain).max(0)
    assert found.best.startswith(
        "OUTPUT was computed in eval mode with eps 1e-3 (largest difference "
    )
    said = f"the output would be off by {off.max():.2g} in channel {off.argmax()}."
    assert f"; with eps 1e-5, {said}" in found.best


def test_in_half_precision_the_mode_that_is_right_comes_before_one_that_is_not():
    """One value beside 499 others: its output is 19 in training mode, and about 0 in eval mode."""
    x = torch.full((500, 1, 1), 1.7734375, dtype=torch.bfloat16)
    x[7] = 1.78125
    layer = torch.nn.BatchNorm1d(1, eps=1e-6)
    with torch.no_grad():
        layer.weight.fill_(2.6)
        layer.bias.fill_(-0.18)
        y = layer(x)
    known = Known(np.array([2.6]), np.array([-0.18]), np.array([1.17]), np.array([44.8]), 1e-6)
    x_values, y_values = (tensor.float().numpy() for tensor in (x, y))
    found = identify_output(source(x_values, "bfloat16"), source(y_values, "bfloat16"), 1, known)
    assert found.best.startswith("OUTPUT was computed in training mode with eps 1e-6")
    assert all(item.hypothesis.mode == "training" for item in found.hypotheses if item.explains)


def test_no_absurd_eps_is_fitted_to_a_constant_output():
    """The bias alone, as a GroupNorm of groups of one value gives it, and its last bit."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(16, 2, 1, 1))
    bias = np.array([0.3, 1.7])
    known = Known(np.ones(2), bias, rng.normal(size=2), np.ones(2))
    flat = bias.reshape(1, 2, 1, 1)
    found = identify_output(
        source(x), source(np.where(x > 0, np.nextafter(flat, 9), flat)), 1, known
    )
    assert not any(item.hypothesis.fitted for item in found.hypotheses)
    assert not any(
        item.hypothesis.mode in ("training", "eval")
        for item in found.hypotheses[:1]
        if item.explains
    )


@pytest.mark.parametrize("eps", [3e-4, 1.7e-3, 0.01])
@pytest.mark.parametrize(
    ("how", "mode"),
    [
        ("statistics 0 and 1", "eval"),
        ("mean not subtracted", "training"),
        ("mean not subtracted", "eval"),
    ],
)
def test_statistics_used_oddly_with_an_eps_that_nobody_lists(how, mode, eps):
    rng = np.random.default_rng(3)
    x = rng.normal(0.5, 0.3, (16, 4, 5)).astype(np.float32)
    known = Known(rng.normal(1, 0.2, 4), rng.normal(size=4), rng.normal(size=4), np.full(4, 0.3))
    var = {"training": x.astype(np.float64).var((0, 2)), "eval": known.running_var}[mode]
    if how == "statistics 0 and 1":
        var = np.ones(4)
    scale, bias = known.weight / np.sqrt(var + eps), known.bias
    y = (x * scale[:, None] + bias[:, None]).astype(np.float32)
    found = identify_output(ArraySource(x, "float32"), ArraySource(y, "float32"), 1, known)
    best = found.hypotheses[0].hypothesis
    assert found.explained
    assert not found.expected
    assert (best.mode, best.variant) == (mode, f"fitted eps, {how}")
    assert best.eps == pytest.approx(eps, rel=0.02)


@pytest.mark.parametrize("scale", [0.5, 0.9, 0.98, 1.02])
def test_a_scale_of_all_channels_is_no_eps_of_fresh_statistics(scale):
    x = np.random.default_rng(4).normal(size=(16, 4, 5)).astype(np.float32)
    y = (scale * x).astype(np.float32)
    found = identify_output(ArraySource(x, "float32"), ArraySource(y, "float32"), 1, Known())
    assert not found.explained
