"""A function: what it is given, what it returns or updates in place, and what is told of it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import batch_norm

from bncli.errors import ModelError
from bncli.model import BatchNormSettings
from tests.backends.calls import call_of, expected_quantities
from tests.backends.users.code import backend, plain

SHAPE = (3, 3, 4, 5)
NAMES = ("x", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")


def seen_by(settings, dtype="float32"):
    """What a function was given, by name."""
    seen = {}

    def function(*given):
        seen.update(zip(NAMES, given, strict=True))
        return given[0]

    backend(function).run(call_of(SHAPE, settings, dtype))
    return seen


def test_what_a_function_is_given():
    seen = seen_by(BatchNormSettings(momentum=0.3, eps=1e-3))
    assert seen["x"].shape == SHAPE
    assert {seen[name].dtype for name in NAMES[:5]} == {np.dtype("float32")}
    assert (seen["training"], seen["momentum"], seen["eps"]) == (True, 0.3, 1e-3)
    bare = seen_by(BatchNormSettings(affine=False, track_running_stats=False, training=False))
    assert [bare[name] for name in NAMES[1:5]] == [None] * 4
    assert bare["training"] is True  # as PyTorch calls its function: the batch normalises
    assert seen_by(BatchNormSettings(training=False))["training"] is False


def test_an_average_of_all_batches_is_the_weight_of_the_next():
    assert seen_by(BatchNormSettings(momentum=None))["momentum"] == pytest.approx(1 / 4)


def test_half_precision_keeps_its_parameters_wide():
    seen = seen_by(BatchNormSettings(), "float16")
    assert (seen["x"].dtype, seen["weight"].dtype) == (np.float16, np.float32)
    assert seen_by(BatchNormSettings(), "bfloat16")["x"].dtype == np.float32


def test_running_statistics_may_be_returned():
    def returning(x, weight, bias, running_mean, running_var, training, momentum, eps):
        kept = running_mean.copy(), running_var.copy()
        y = plain(x, weight, bias, *kept, training, momentum, eps)
        return y, *(each.reshape(1, -1, 1, 1) for each in kept)

    call = call_of(SHAPE, BatchNormSettings())
    expected = expected_quantities(call)
    run = backend(returning).run(call)
    for quantity in ("output", "running_mean", "running_var"):
        np.testing.assert_allclose(run.quantities[quantity], expected[quantity], rtol=1e-9)
    untracked = call_of(SHAPE, BatchNormSettings(track_running_stats=False))
    bare = backend(lambda x, *more: (plain(x, *more), None, None)).run(untracked)
    assert set(bare.quantities) == {"output"}


def wrong(returned):
    def function(x, weight, bias, running_mean, running_var, training, momentum, eps):
        return returned(x)

    return function


def raises(x):
    return x / "2"


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (lambda x: (x, x), "function returned 2 values; a function returns the output, or "),
        (lambda x: (x, x, x), r"running_mean has shape \[3, 3, 4, 5\], but there are 3 channels"),
        (lambda x: (x, 1.0, x), "running_mean is a float, not an array"),
        (lambda x: None, "the output is None, not an array"),
        (lambda x: x.tolist(), "function returned 3 values|not an array"),
        (lambda x: x.sum(), r"the output has shape \[\], but the input has \[3, 3, 4, 5\]"),
        (lambda x: x.astype("float16"), "the output is float16, but the input is float32"),
        (lambda x: x.astype("float64"), "the output is float64, but the input is float32"),
        (lambda x: torch.tensor(x).half(), "the output is float16, but the input is float32"),
        (lambda x: x[9], "function raised IndexError: [^.]*[.]$"),
        (raises, "test_function.py:.*raised .*Error: .* It was given NumPy arrays; where it takes"),
    ],
)
def test_what_cannot_be_compared_is_told(returned, sentence):
    with pytest.raises(ModelError, match=sentence) as caught:
        backend(wrong(returned), "function").run(call_of(SHAPE, BatchNormSettings(), "float32"))
    assert "\n" not in str(caught.value)


def test_what_is_overwritten_is_said():
    def overwrites(x, weight, bias, running_mean, running_var, training, momentum, eps):
        x *= 2
        bias += 1
        return x

    def tensors(x: torch.Tensor, weight, bias, running_mean, running_var, training, momentum, eps):
        with torch.no_grad():
            bias += 1
        return x.mul_(2)

    for function in (overwrites, tensors):
        run = backend(function).run(call_of(SHAPE, BatchNormSettings()))
        assert run.overwritten == (("x", 180, 180), ("bias", 3, 3))


def test_an_output_that_is_kept_and_written_again_is_read_at_once():
    kept = np.empty(SHAPE)

    def reuses(x, weight, bias, running_mean, running_var, training, momentum, eps):
        kept[...] = plain(x, weight, bias, running_mean, running_var, training, momentum, eps)
        return kept

    call = call_of(SHAPE, BatchNormSettings())
    first = backend(reuses).run(call)
    backend(reuses).run(call_of(SHAPE, BatchNormSettings(), seed=1))
    expected = expected_quantities(call)["output"]
    np.testing.assert_allclose(first.quantities["output"], expected, rtol=1e-9, atol=1e-9)


def test_gradients_are_autograds():
    def tensors(x: torch.Tensor, weight, bias, running_mean, running_var, training, momentum, eps):
        return batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)

    call = call_of(SHAPE, BatchNormSettings())
    expected = expected_quantities(call)
    run = backend(tensors).run(call)
    for quantity in ("grad_input", "grad_weight", "grad_bias"):
        np.testing.assert_allclose(
            run.quantities[quantity], expected[quantity], rtol=1e-9, atol=1e-9
        )


def test_what_it_prints_goes_to_standard_error(capsys):
    def talks(x, *more):
        sys.stdout.write("kernel launched")
        return plain(x, *more)

    backend(talks).run(call_of(SHAPE, BatchNormSettings()))
    out, err = capsys.readouterr()
    assert (out, "kernel launched" in err) == ("", True)
