"""A module class: its arguments, its state, what it returns, and what it overwrites."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bncli.errors import ModelError
from bncli.model import BatchNormSettings
from bncli.verify.comparison import compare_pass
from tests.backends.calls import call_of, expected_quantities
from tests.backends.users.code import Plain, backend
from tests.configurations import configuration

SHAPE = (3, 3, 4, 5)


def test_a_class_may_lack_arguments_and_a_counter():
    for settings in (BatchNormSettings(), BatchNormSettings(training=False, eps=1e-3)):
        call = call_of(SHAPE, settings)
        run = backend(Plain).run(call)
        expected = expected_quantities(call)
        assert set(run.quantities) == set(expected) - {
            "mean", "var", "invstd", "num_batches_tracked",
        }  # fmt: skip
        for quantity, values in run.quantities.items():
            np.testing.assert_allclose(values, expected[quantity], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (BatchNormSettings(affine=False), "Plain has no argument affine, which this layer needs"),
        (
            BatchNormSettings(track_running_stats=False),
            "Plain has no argument track_running_stats, which this layer needs",
        ),
    ],
)
def test_an_argument_that_the_layer_needs_is_named(settings, sentence):
    with pytest.raises(ModelError, match=sentence):
        backend(Plain).run(call_of(SHAPE, settings))


def test_the_state_may_have_another_shape():
    class Wide(Plain):
        def __init__(self, num_features, **arguments):
            super().__init__(num_features, **arguments)
            for name in ("weight", "bias"):
                self.register_parameter(
                    name, torch.nn.Parameter(getattr(self, name).detach().view(1, -1, 1, 1))
                )
            for name in ("running_mean", "running_var"):
                self.register_buffer(name, getattr(self, name).view(1, -1, 1, 1))

        def forward(self, x):
            mean = x.mean((0, 2, 3), keepdim=True)
            var = x.var((0, 2, 3), keepdim=True, correction=0)
            n = x.numel() // x.shape[1]
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * n / (n - 1), self.momentum)
            return (x - mean) / (var + self.eps).sqrt() * self.weight + self.bias

    call = call_of(SHAPE, BatchNormSettings())
    expected = expected_quantities(call)
    for quantity, values in backend(Wide).run(call).quantities.items():
        np.testing.assert_allclose(values, expected[quantity], rtol=1e-9, atol=1e-9)


def test_honest_classes_pass_on_all_data():
    seen = 0
    for seed in range(3000, 3100):
        config = configuration(seed, largest=20_000)
        settings = config.settings
        if not (settings.affine and settings.track_running_stats and settings.momentum is not None):
            continue
        if config.dtype in ("float16", "bfloat16"):
            continue  # mixed dtypes are not what this class is for
        seen += 1
        compared, _ = compare_pass(config.done(), config.x, backend(Plain), seed=seed)
        assert [item for item in compared if not item.passed] == [], seed
    assert seen > 10


class Changed(Plain):
    """A class with one method in the place of another."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)


def of(**methods):
    return type("Changed", (Changed,), methods)


def raising(self, x):
    raise RuntimeError("no kernel for this device")


def leaving(self, x):
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("forward", "sentence"),
    [
        (lambda self, x: self, "Changed: the output is a Changed, not an array"),
        (lambda self, x: None, "Changed: the output is None, not an array"),
        (lambda self, x: [x], "Changed: the output is a list, not an array"),
        (lambda self, x: x[:, :2], r"output has shape \[3, 2, 4, 5\], but the input has \[3, 3,"),
        (lambda self, x: x.half(), "the output is float16, but the input is float64"),
        (lambda self, x: x > 0, "the output holds bool, not floating-point numbers"),
        (lambda self, x: x.detach().numpy(), "the output is an ndarray, not a tensor"),
        (raising, "test_module.py:.*forward pass raised RuntimeError: no kernel for this device"),
        (leaving, "Changed's forward pass ended the process"),
    ],
)
def test_what_cannot_be_compared_is_told_in_a_sentence(forward, sentence, monkeypatch):
    with pytest.raises(ModelError, match=sentence) as caught:
        backend(of(forward=forward), "Changed").run(call_of(SHAPE, BatchNormSettings()))
    assert "\n" not in str(caught.value)


def test_state_that_is_missing_or_of_another_size_is_told():
    class Renamed(Plain):
        def __init__(self, num_features):
            super().__init__(num_features)
            self.gamma, self.weight = self.weight, None

    class Halved(Plain):
        def __init__(self, num_features):
            super().__init__(num_features - 1)

    call = call_of(SHAPE, BatchNormSettings())
    with pytest.raises(ModelError, match=r"state has no weight, which .*; it has bias, gamma, "):
        backend(Renamed, "Renamed").run(call)
    with pytest.raises(ModelError, match=r"weight has shape \[2\], but there are 3 channels"):
        backend(Halved, "Halved").run(call)


def test_train_may_return_nothing():
    def train(self, mode=True):
        self.training = mode

    call = call_of(SHAPE, BatchNormSettings())
    run = backend(of(train=train)).run(call)
    expected = expected_quantities(call)["output"]
    np.testing.assert_allclose(run.quantities["output"], expected, rtol=1e-9, atol=1e-9)


def test_a_maker_of_something_else_is_told():
    def make(num_features):
        return object()

    with pytest.raises(ModelError, match=r"make makes object, not a torch\.nn.Module"):
        backend(make, "make").run(call_of(SHAPE, BatchNormSettings()))


def test_an_input_or_a_weight_that_is_overwritten_is_said():
    def in_place(self, x):
        with torch.no_grad():
            x.mul_(2)
            self.weight.mul_(2)
        return x

    run = backend(of(forward=in_place)).run(call_of(SHAPE, BatchNormSettings()))
    assert run.overwritten == (("x", 180, 180), ("weight", 3, 3))


def test_the_callers_arrays_are_left_alone():
    call = call_of(SHAPE, BatchNormSettings())
    assert call.running is not None
    arrays = (call.x, call.grad_output, call.weight, call.bias, call.running.running_mean)
    before = [array.copy() for array in arrays]

    def in_place(self, x):
        with torch.no_grad():
            x.fill_(7)
            self.weight.fill_(7)
            self.running_mean.fill_(7)
        return x

    backend(of(forward=in_place)).run(call)
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_an_output_without_a_gradient_has_no_backward_pass():
    def detached(self, x):
        return Plain.forward(self, x).detach()

    run = backend(of(forward=detached)).run(call_of(SHAPE, BatchNormSettings()))
    assert set(run.quantities) == {"output", "running_mean", "running_var"}


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
def test_the_axes_are_the_users(axis):
    call = call_of((2, 3, 4, 5), BatchNormSettings(), channel_axis=axis % 4)
    run = backend(torch.nn.BatchNorm2d).run(call)
    expected = expected_quantities(call)
    for quantity in ("output", "grad_input"):
        np.testing.assert_allclose(
            run.quantities[quantity], expected[quantity], rtol=1e-9, atol=1e-9
        )


def test_the_memory_format_and_threads_are_the_calls():
    seen = []

    class Looks(torch.nn.BatchNorm2d):
        def forward(self, x):
            seen.append((x.is_contiguous(), torch.get_num_threads()))
            return super().forward(x)

    before = torch.get_num_threads()
    call = replace(call_of(SHAPE, BatchNormSettings()), memory_format="channels_last", threads=2)
    assert backend(Looks).run(call).threads == 2
    assert seen == [(False, 2)]
    assert torch.get_num_threads() == before
