"""Half precision: torch's own outputs are one rounding away, and a range of eps explains them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from bncli.verify.identify.halves import by_one_rounding, eps_range, is_broad, range_text
from bncli.verify.identify.hypotheses import Hypothesis, Known
from bncli.verify.identify.output import identify_output
from bncli.verify.identify.pair import ArraySource, View
from bncli.verify.identify.search import Seen

SHAPES = ((8, 3, 5, 4), (64, 5), (4, 16, 9, 9), (2, 3, 7))
LAYERS = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}


def made(dtype, kept, eps, shape, seed=0, *, last=False, training=False, var=(0.2, 2.0)):
    """torch's half precision output: the input, the output, and the state in float32.

    `kept` is the dtype of the parameters and buffers while the layer ran.
    """
    torch.manual_seed(seed)
    wide = getattr(torch, dtype)
    x = (torch.randn(shape) * 2 + 0.5).to(wide)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    layer = LAYERS[len(shape)](shape[1], eps=eps)
    with torch.no_grad():
        layer.weight.normal_(1, 0.5)
        layer.bias.normal_()
        layer.running_mean.normal_()
        layer.running_var.uniform_(*var)
        known = Known(
            *(
                getattr(layer, name).double().numpy().copy()
                for name in ("weight", "bias", "running_mean", "running_var")
            )
        )
        y = layer.to(getattr(torch, kept)).train(training)(x)
    return ArraySource(x.float().numpy(), dtype), ArraySource(y.float().numpy(), dtype), known


def rounded(known, dtype):
    """The state as a layer in this dtype holds it."""
    vectors = (known.weight, known.bias, known.running_mean, known.running_var)
    wide = getattr(torch, dtype)
    return Known(*(torch.from_numpy(values).to(wide).double().numpy() for values in vectors))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("same", [False, True], ids=["float32 state", "state in halves"])
def test_the_true_eps_is_in_the_range_of_torch_s_own_output(dtype, same):
    """One rounding is all that PyTorch's evaluation leaves, whatever the layout and the size."""
    kept = dtype if same else "float32"
    for eps, shape, seed, last in product((1e-5, 3e-4, 0.01), SHAPES, range(2), (False, True)):
        if last and len(shape) != 4:
            continue
        x, y, known = made(dtype, kept, eps, shape, seed, last=last, var=(1e-4, 3.0))
        seen = Seen.of(View(x, y, 1), rounded(known, dtype) if same else known)
        found = eps_range(seen, Hypothesis("eval", None, 1e-5))
        assert found is not None
        assert found[0] <= eps <= found[1]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kept", ["float32", "same"])
def test_an_eps_that_no_framework_has_is_no_flat_pass(dtype, kept):
    """It is named where the range is narrow, and the range is told where it is broad."""
    kept = dtype if kept == "same" else kept
    for eps, shape in product((3e-4, 3e-3), ((8, 8, 8, 8), (16, 4))):
        x, y, known = made(dtype, kept, eps, shape)
        found = identify_output(x, y, 1, known)
        best = found.hypotheses[0].hypothesis
        assert (best.mode, best.statistics) == ("eval", "")
        assert found.explained
        if found.eps_range is None:
            assert best.eps == pytest.approx(eps, rel=0.01)
            continue
        low, high = found.eps_range
        assert low <= eps <= high
        assert not found.confident
        assert found.expected == (low <= 1e-5 <= high)
        assert f"in eval mode with an eps {range_text((low, high))}" in found.best
        assert "the same output in float32 would" in found.best


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kept", ["float32", "same"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_expected_eps_is_never_blamed(dtype, kept, shape):
    for seed in range(4):
        x, y, known = made(dtype, dtype if kept == "same" else kept, 1e-5, shape, seed)
        found = identify_output(x, y, 1, known)
        assert found.expected
        if found.eps_range is not None:
            assert found.eps_range[0] <= 1e-5 <= found.eps_range[1]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_batch_s_eps_is_told_as_a_range_too(dtype):
    x, y, known = made(dtype, "float32", 3e-4, (8, 8, 8, 8), training=True)
    found = identify_output(x, y, 1, known)
    assert found.hypotheses[0].hypothesis.mode == "training"
    assert found.eps_range[0] <= 3e-4 <= found.eps_range[1]
    assert "in training mode with an eps between" in found.best
    assert not found.confident


def test_what_was_rounded_more_than_once_keeps_the_wide_tolerance():
    """NumPy's float16 rounds each step, so that one rounding does not account for its output."""
    x, _, known = made("float16", "float32", 1e-5, (8, 8, 8, 8))
    half = [values.astype(np.float16).reshape(1, 8, 1, 1) for values in (
        known.running_mean, 1 / np.sqrt(known.running_var + 1e-5) * known.weight, known.bias
    )]  # fmt: skip
    y = (x.values.astype(np.float16) - half[0]) * half[1] + half[2]
    made_by = ArraySource(y.astype(np.float32), "float16")
    seen = Seen.of(View(x, made_by, 1), known)
    plain = Hypothesis("eval", None, 1e-5)
    assert eps_range(seen, plain) is None
    order = seen.measured([plain])
    assert by_one_rounding(seen, order) == (order, None)


def test_float32_is_left_alone():
    x, y, known = made("float32", "float32", 3e-4, (8, 8, 8, 8))
    assert identify_output(x, y, 1, known).eps_range is None


def test_a_range_is_rounded_outwards():
    assert range_text((2.9604e-4, 3.0861e-4)) == "between 2.96e-4 and 3.09e-4"
    assert range_text((0.0, 1.0001e-3)) == "between 0 and 1.01e-3"
    assert range_text((2.9664e-4, 9.992e-4)) == "between 2.96e-4 and 1e-3"


def test_a_usual_eps_is_named_in_a_range_that_holds_no_other():
    for fitted in (False, True):
        assert is_broad((0.0, 1e-9), fitted=fitted)
        assert is_broad((1e-3, 1.2e-3), fitted=fitted)
        assert not is_broad((1e-3, 1.005e-3), fitted=fitted)
        assert is_broad((2.9e-4, 3.1e-4), fitted=fitted) == fitted
