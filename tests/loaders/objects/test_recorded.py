"""What bncli.capture gives, in the place of a statistics file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import bncli
from bncli.errors import ModelError, UnsupportedFileError
from bncli.given import name_of, objects_given
from bncli.loaders.statistics import is_statistics_file, open_statistics, read_statistics
from bncli.model.capture import Capture


class Pretending:
    """An object with an attribute of that name, which bncli did not make."""

    capture = Capture(())


def test_a_recording_and_a_capture_are_statistics_and_nothing_else_is():
    model = nn.Sequential(nn.BatchNorm1d(3))
    with bncli.capture(model) as stats:
        model(torch.randn(5, 3))
    with objects_given():
        for given in (stats, stats.capture):
            name = name_of(given)
            assert is_statistics_file(name)
            assert [layer.name for layer in open_statistics(name).norms] == ["0"]
            assert read_statistics([Path(name)]).norms[0].seen
        for other in (model, {}, Pretending(), Pretending, torch.ones(2)):
            name = name_of(other)
            assert not is_statistics_file(name)
            with pytest.raises(UnsupportedFileError, match="does not hold statistics"):
                open_statistics(name)


def test_a_recording_that_could_not_take_an_input_in_says_so():
    model = nn.Sequential(nn.BatchNorm1d(3))
    stats = bncli.capture(model)
    stats._problem = "layer: its input could not be taken in"
    with objects_given(), pytest.raises(ModelError, match="could not be taken in"):
        open_statistics(name_of(stats))
