"""A layer's arguments are those of PyTorch's modules."""

import inspect

import pytest
import torch

from bncli.model import BatchNormModule, BatchNormSettings


def test_the_defaults_of_the_installed_pytorch():
    parameters = inspect.signature(torch.nn.BatchNorm2d).parameters
    settings = BatchNormSettings()
    for name in ("eps", "momentum", "affine", "track_running_stats"):
        assert getattr(settings, name) == parameters[name].default
    assert settings.training is torch.nn.BatchNorm2d(1).training


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("tracked", [True, False])
def test_which_statistics_normalise(training, tracked):
    """PyTorch's own choice shows in what it makes of a constant batch."""
    module = torch.nn.BatchNorm1d(1, track_running_stats=tracked).train(training)
    normalised = module(torch.full((4, 1), 7.0)).abs()
    settings = BatchNormSettings(training=training, track_running_stats=tracked)
    assert settings.normalizes_with_batch == bool((normalised < 1e-3).all())


def test_a_stored_module_says_nothing_that_the_file_does_not():
    module = BatchNormModule("BatchNorm2d")
    assert (module.eps, module.momentum, module.affine, module.training) == (None,) * 4
    assert module.track_running_stats is None
    assert module.has_momentum
