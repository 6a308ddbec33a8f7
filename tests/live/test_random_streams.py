"""Random numbers apart from all others."""

from __future__ import annotations

import random

import numpy as np
import torch

from bncli.live.random_streams import RandomStreams, seed_all


def draw() -> list[float]:
    """A number of each kind."""
    return [random.random(), float(np.random.random()), float(torch.rand(()))]  # noqa: NPY002


def test_a_seed_gives_the_same_numbers():
    seed_all(3)
    first = draw()
    seed_all(3)
    assert draw() == first
    seed_all(4)
    assert not set(draw()) & set(first)


def test_streams_go_on_from_block_to_block_and_leave_the_others_alone():
    seed_all(3)
    whole = [draw(), draw()]
    seed_all(5)
    outside = [draw(), draw()]
    seed_all(5)
    streams = RandomStreams(3)
    with streams.drawing():
        one = draw()
    assert draw() == outside[0]
    with streams.drawing():
        other = draw()
    assert [one, other] == whole
    assert draw() == outside[1]
