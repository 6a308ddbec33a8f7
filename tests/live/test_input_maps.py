from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bncli.live.input_maps import IMAGENET, InputMap, input_maps
from bncli.live.session import Session
from bncli.model.capture import Capture
from tests.live.small import data, filled, images, made

BATCHES = images()
ALL = 99


def maps(net, tensors, most=ALL, *, whole=False):
    session = Session(net, data(tensors))
    with session.open():
        return input_maps(session.capture(renew=False), most, whole=whole)


def names(found):
    return [each.what for each in found]


def test_a_map_keeps_the_dtype_and_makes_floats_of_integers():
    change = InputMap("", np.array([1 / 255, 2.0]), np.array([0.0, 1.0]))
    for dtype in (torch.float64, torch.float32, torch.float16):
        x = torch.full((3, 2, 4), 255, dtype=dtype)
        assert change(x).dtype == dtype
        assert change(x)[0, :, 0].tolist() == [1, 511]
    assert change(torch.full((3, 2), 255, dtype=torch.uint8)).dtype == torch.float32
    assert change.numbers == {"scale": [1 / 255, 2.0], "shift": [0.0, 1.0]}


def test_a_map_reorders_channels():
    change = InputMap("", np.ones(3), np.zeros(3), (2, 1, 0))
    assert change(torch.tensor([[1, 2, 3]])).tolist() == [[3, 2, 1]]
    assert change.numbers == {"order": [2, 1, 0]}


def test_bytes_are_divided_by_255():
    rounded = [(x * 100).round().abs() for x in BATCHES]
    found = names(maps(made(), rounded, whole=True))
    assert "input divided by 255" in found
    assert "input divided by 255, less ImageNet's mean, over its standard deviation" in found
    found = names(maps(made(), rounded))
    assert "input divided by 255, less ImageNet's mean, over its standard deviation" not in found


@pytest.mark.parametrize(
    ("scale", "shift", "what"),
    [
        (0.2, 0.4, "input less ImageNet's mean, over its standard deviation"),
        (2, -1, "input times ImageNet's standard deviation, plus its mean"),
    ],
)
def test_pixels_are_normalised_and_what_is_no_pixels_the_other_way(scale, shift, what):
    found = names(maps(made(), [x * scale + shift for x in BATCHES]))
    assert [each for each in found if "ImageNet" in each] == [what]


def test_bytes_that_were_normalised_as_pixels_become_those_of_normalised_pixels():
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in IMAGENET)
    pixels = [x.sigmoid() for x in BATCHES]
    came = [(x * 255 - mean) / std for x in pixels]
    net = made(tensors=[(x - mean) / std for x in pixels])
    found = [each for each in maps(net, came) if "ImageNet" in each.what]
    assert [each.what for each in found] == [
        "input divided by 255 before ImageNet's mean and standard deviation are applied"
    ]
    torch.testing.assert_close(found[0](came[0]), (pixels[0] - mean) / std, rtol=0, atol=1e-4)


def test_other_numbers_of_channels_know_no_images():
    tensors = images(channels=4)
    found = names(maps(made(tensors=tensors, channels=4), tensors))
    assert not any("ImageNet" in each or "order" in each for each in found)
    assert "input less its own mean" in found


def test_the_best_are_taken_and_stand_in_their_order():
    net = made()
    every = maps(net, [x * 3 for x in BATCHES])
    best = maps(net, [x * 3 for x in BATCHES], 2)
    assert [each for each in names(every) if each in names(best)] == names(best)
    assert "input scaled and shifted as the first layer's statistics imply" in names(best)


def test_a_layer_that_reads_the_input_itself_says_its_own_means():
    net = filled(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)), BATCHES)
    found = maps(net, [x * 10 + 7 for x in BATCHES])[-1]
    assert found.what == "input scaled and shifted as the first layer's statistics imply"
    assert found.scale == pytest.approx([0.1] * 3, rel=0.01)
    assert found.shift == pytest.approx([-0.7] * 3, rel=0.05)


def test_the_simplest_are_taken_where_the_first_layer_is_far_from_the_input():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.BatchNorm2d(8)).eval()
    found = names(maps(net, BATCHES, 2))
    assert found == names(maps(net, BATCHES))[:2]
    assert not any("first layer" in each for each in names(maps(net, BATCHES)))


def test_there_are_none_for_an_input_that_is_not_known_or_not_finite():
    assert input_maps(Capture(()), ALL, whole=False) == []
    spoilt = BATCHES[0].clone()
    spoilt[0, 0, 0, 0] = torch.nan
    assert maps(made(), [spoilt]) == []
