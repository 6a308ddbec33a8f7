"""The backend itself: its device and threads, and the module that it makes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bncli.backends import BackendName, backend
from bncli.backends.interface import NormCall
from bncli.errors import MissingBackendError
from bncli.model import BatchNormSettings
from bncli.norms import describe
from tests.backends.calls import MODES, SHAPES, call_of

TORCH = backend(BackendName.TORCH)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("settings", MODES, ids=repr)
def test_it_is_the_module_that_a_user_runs(shape, settings):
    call = call_of(shape, settings, "float32")
    kind = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}
    module = kind.get(len(shape), torch.nn.BatchNorm3d)(
        shape[1], eps=settings.eps, momentum=settings.momentum, affine=settings.affine,
        track_running_stats=settings.track_running_stats,
    )  # fmt: skip
    with torch.no_grad():
        if settings.affine:
            module.weight.copy_(torch.from_numpy(call.weight))
            module.bias.copy_(torch.from_numpy(call.bias))
        if call.running is not None:
            module.running_mean.copy_(torch.from_numpy(call.running.running_mean))
            module.running_var.copy_(torch.from_numpy(call.running.running_var))
            module.num_batches_tracked.fill_(call.running.num_batches_tracked)
    module.train(settings.training)
    x = torch.from_numpy(call.x.copy()).requires_grad_()
    y = module(x)
    y.backward(torch.from_numpy(call.grad_output.copy()))
    run = TORCH.run(call)
    np.testing.assert_array_equal(run.quantities["output"], y.detach())
    np.testing.assert_array_equal(run.quantities["grad_input"], x.grad)
    if call.running is not None:
        np.testing.assert_array_equal(run.quantities["running_var"], module.running_var)
        assert run.quantities["num_batches_tracked"] == [int(module.num_batches_tracked)]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_it_takes_the_threads_asked_for_and_gives_them_back(threads):
    before = torch.get_num_threads()
    run = TORCH.run(replace(call_of((6, 3), BatchNormSettings()), threads=threads))
    assert run.threads == threads
    assert torch.get_num_threads() == before


def test_threads_are_given_back_after_an_error_too():
    before = torch.get_num_threads()
    call = replace(call_of((1, 3), BatchNormSettings()), threads=before + 1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        TORCH.run(call)
    assert torch.get_num_threads() == before


def test_a_device_that_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingBackendError, match="PyTorch sees no CUDA device here"):
        TORCH.run(replace(call_of((6, 3), BatchNormSettings()), device="cuda"))


def test_it_says_whether_it_is_repeated():
    assert isinstance(TORCH.repeats(), bool)
    assert TORCH.version()


def test_it_gives_steps_and_norms_too():
    call = call_of((6, 3), BatchNormSettings())
    np.testing.assert_array_equal(TORCH.steps(call)["x"], call.x)
    (norm, *_) = describe((6, 3), 1, groups=1, normalized=1, eps=None, rms_eps=1e-7)
    assert TORCH.run_norm(NormCall(norm, call.x, "float64")).affine_shape == (3,)
