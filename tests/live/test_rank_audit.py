"""What of a model is compared between ranks; several ranks are in tests/commands/capture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bncli.live.rank_audit import audited, packed, state_of, unpacked
from bncli.model.ranks import differences
from bncli.process.ranks.group import LeftError, working
from tests.live.small import Net

LAYERS = ("bn1", "bn2", "bn3")


def differences_of(states):
    return differences(dict(enumerate(states)))


def net(seed=0):
    torch.manual_seed(seed)
    return Net()


class Group:
    """A group as rank `rank` sees it, whose states are these."""

    def __init__(self, rank, states):
        self.leads, self._states, self.left = rank == 0, states, False

    def collect(self, name, payload):
        return [payload, *self._states] if self.leads else None

    def agree(self, name, text):
        return text if self.leads else "other"

    def gather(self, payload):
        if not self.leads:
            raise LeftError
        self.left = True
        return []


def test_every_parameter_and_buffer_comes_back():
    model = net()
    model.register_buffer("scratch", torch.arange(3), persistent=False)
    state = state_of(model, LAYERS)
    expected = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    assert set(state) == expected
    assert "scratch" in expected
    with_values = {name for name, each in state.items() if each.values is not None}
    assert with_values == {name for name in expected if name.split(".")[0] in LAYERS}
    back = unpacked(packed(state))
    assert differences_of([state, back]) == []
    np.testing.assert_array_equal(back["bn1.weight"].values, np.ones(8))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda m: m.bn2.running_var.mul_(1.5), "running_var"),
        (lambda m: m.bn2.num_batches_tracked.add_(1), "num_batches_tracked"),
        (lambda m: m.bn2.weight.data[3:4].neg_(), "weight"),
    ],
)
def test_one_changed_tensor_is_the_one_found(change, name):
    model, other = net(), net()
    change(other)
    (found,) = differences_of([state_of(each, LAYERS) for each in (model, net(), other)])
    assert (found.layer, found.name, found.ranks, found.what) == ("bn2", name, (2,), "values")
    apart = {"running_var": 0.5, "num_batches_tracked": 1.0, "weight": 2.0}
    assert found.apart == apart[name]


def test_other_seeds_differ_in_the_weights_alone():
    found = differences_of([state_of(net(seed), LAYERS) for seed in (0, 1)])
    assert {each.layer for each in found} == {"conv1", "conv2", "linear", "out"}


def test_odd_tensors_are_no_trouble():
    model = nn.Sequential(nn.LazyLinear(3), nn.BatchNorm1d(3, dtype=torch.bfloat16))
    model.register_buffer("complex", torch.ones(2, dtype=torch.complex64))
    model.register_buffer("meta", torch.ones(2, device="meta"))
    model.register_buffer("empty", torch.ones(0))
    state = state_of(model, ("1",))
    assert differences_of([unpacked(packed(state)), state]) == []
    assert state["meta"].crc is None
    assert state["1.weight"].values.tolist() == [1, 1, 1]


def test_rank_0_tells_what_differs_and_the_others_leave():
    mine, other = net(), net()
    other.bn1.running_mean += 1
    theirs = packed(state_of(other, LAYERS))
    with working(Group(0, [packed(state_of(mine, LAYERS))])) as _:
        assert audited(mine, LAYERS) == []
    group = Group(0, [theirs])
    with working(group):
        (found,) = audited(mine, LAYERS)
    assert (found.name, found.apart, group.left) == ("running_mean", 1.0, True)
    with working(Group(1, [])), pytest.raises(LeftError):
        audited(other, LAYERS)
