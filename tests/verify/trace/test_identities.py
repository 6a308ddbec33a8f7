"""What must hold between gradients holds, and sees a planted fault."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncli.verify.trace import gradients, identities
from tests.configurations import configuration
from tests.sampling import sampled
from tests.verify.trace.channels import plain, views


@pytest.mark.parametrize("seed", sampled(range(150), lambda place: place < 30))
def test_the_identities_hold(seed):
    given = configuration(seed, largest=3000)
    g = np.random.default_rng(seed).normal(size=given.x.shape)
    done = given.done()
    for channel in range(given.x.shape[given.channel_axis]):
        view, upstream = views(given, g, channel)
        found = gradients(done, view, upstream)
        for item in identities(done, view, upstream, found):
            assert item.holds, item


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        ({"sum_g": 1.001}, {"sum(grad_input)"}),
        ({"sum_g_x_hat": 1.001}, {"sum(grad_input * x_hat)"}),
        ({"grad_var": 1.001}, {"grad_input, where furthest"}),
        ({"grad_mean": 1.001}, {"grad_input, where furthest"}),
        ({"scale": 1.001}, {"grad_input, where furthest"}),
    ],
)
def test_a_planted_fault_breaks_an_identity(fault, broken):
    rng = np.random.default_rng(0)
    given = plain(rng.normal(2, 3, (64, 3)))
    g = rng.normal(size=given.x.shape)
    done = given.done()
    view, upstream = views(given, g, 1)
    found = gradients(done, view, upstream)
    wrong = replace(found, **{key: getattr(found, key) * times for key, times in fault.items()})
    failed = {item.quantity for item in identities(done, view, upstream, wrong) if not item.holds}
    assert failed >= broken


def test_the_term_of_eps_is_seen():
    """1e-5 beside a variance of 9 is a millionth; without it the identity would fail."""
    rng = np.random.default_rng(0)
    given = plain(rng.normal(2, 3, (64, 3)))
    done = given.done()
    view, upstream = views(given, rng.normal(size=given.x.shape), 0)
    found = gradients(done, view, upstream)
    (item,) = [
        item
        for item in identities(done, view, upstream, found)
        if item.quantity == "sum(grad_input * x_hat)"
    ]
    assert item.holds
    assert replace(item, right=0.0).holds is False


def test_what_is_not_finite_is_not_judged():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 3))
    x[3, 1] = np.inf
    given = plain(x)
    done = given.done()
    view, upstream = views(given, rng.normal(size=x.shape), 1)
    with np.errstate(all="raise"):
        found = gradients(done, view, upstream)
        assert {item.holds for item in identities(done, view, upstream, found)} == {None}
