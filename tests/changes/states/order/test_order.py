"""Channels in another order, and layers that hold another layer's tensors."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from bncli.changes.pair import LayerPair
from bncli.changes.states import explain
from bncli.changes.states.order import find
from bncli.model.changes import Same, State
from tests.changes.networks import files, layer_refs, side, trained
from tests.changes.pairs import NO_FILES, pair, random_layer
from tests.changes.pairs import side as vectors_side

STATISTICS = ("running_mean", "running_var")


def permuted(layer, order, leaves=None):
    return {k: v[order] if leaves is None or k in leaves else v for k, v in layer.items()}


def look(layer, order, leaves=None):
    return find(pair(layer, permuted(layer, order, leaves)), NO_FILES)


EVERY = np.arange(64)
ORDERS = {
    "shifted by 3": np.roll(EVERY, 3),
    "shifted by -1": np.roll(EVERY, -1),
    "reversed": EVERY[::-1],
    "exchanged by halves, 0..31 and 32..63": np.r_[32:64, 0:32],
    "sorted, the even ones first": np.r_[0:64:2, 1:64:2],
    "sorted, the odd ones first": np.r_[1:64:2, 0:64:2],
    "interleaved from the two halves": EVERY.reshape(2, 32).T.ravel(),
    "shuffled in 4 groups": EVERY.reshape(4, 16).T.ravel(),
    "swapped in neighbouring pairs": EVERY.reshape(32, 2)[:, ::-1].ravel(),
    "in another order, 0..15, 32..47, 16..31, 48..63": np.r_[0:16, 32:48, 16:32, 48:64],
}


@pytest.mark.parametrize("says", ORDERS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_an_order_is_named(says, dtype):
    layer = random_layer(64)
    a, b = vectors_side(layer), vectors_side(permuted(layer, ORDERS[says]), dtype=dtype)
    for one, other in ((a, b), (vectors_side(layer, dtype=dtype), b)):
        found = find(pair(one, other), NO_FILES)
        assert found.state is State.ORDER
        assert found.what == f"the channels are {says}"
        assert found.numbers["convolution"] == "unknown"


def test_two_swapped_channels_are_named():
    order = EVERY.copy()
    order[[3, 5]] = 5, 3
    found = look(random_layer(64), order)
    assert found.what == "channels 3 and 5 are swapped"
    assert found.numbers["moved"] == 2


def test_any_other_order_is_counted():
    order = np.r_[np.random.default_rng(4).permutation(58), 58:64]
    found = look(random_layer(64), order)
    moved = int((order != EVERY).sum())
    assert found.what == f"the channels are permuted, {moved} of 64 of them moved"
    assert found.numbers["moved"] == moved


def test_constant_tensors_are_no_hindrance():
    layer = random_layer(64) | {"weight": np.ones(64), "bias": np.zeros(64)}
    assert look(layer, np.roll(EVERY, 3)).what == "the channels are shifted by 3"
    del layer["weight"], layer["bias"]
    assert look(layer, np.roll(EVERY, 3)).numbers["shift"] == 3


def test_a_layer_that_went_through_half_precision_is_still_permuted():
    layer = random_layer(64)
    back = {k: v.astype(np.float16).astype(np.float32) for k, v in layer.items()}
    found = find(pair(layer, permuted(back, EVERY[::-1])), NO_FILES)
    assert found.what == "the channels are reversed"


@given(st.data())
def test_every_permutation_is_found_and_every_other_change_is_not(data):
    count = data.draw(st.integers(2, 40))
    order = np.array(data.draw(st.permutations(range(count))))
    copies = data.draw(st.integers(1, max(1, count // 2)))
    layer = random_layer(count, data.draw(st.integers(0, 9)))
    layer = {k: v[np.r_[np.arange(count - copies), [0] * copies]] for k, v in layer.items()}
    moved = permuted(layer, order)
    changed = int(sum(moved["running_mean"] != layer["running_mean"]))
    assume(changed)
    found = find(pair(layer, moved), NO_FILES)
    assert found.state is State.ORDER
    assert found.numbers["moved"] == changed
    shift = found.numbers["shift"]
    if shift is not None:
        assert all(np.array_equal(np.roll(layer[k], shift), moved[k]) for k in layer)
    leaf = data.draw(st.sampled_from(sorted(layer)))
    at = data.draw(st.integers(0, count - 1))
    moved[leaf] = moved[leaf].copy()
    moved[leaf][at] += np.float32(0.01)
    assert find(pair(layer, moved), NO_FILES) is None


@pytest.mark.parametrize(
    "leaves", [STATISTICS, ("weight", "bias"), ("running_mean",), ("running_var", "weight")]
)
def test_tensors_that_alone_are_permuted_are_named(leaves):
    found = look(random_layer(64), np.roll(EVERY, 3), leaves)
    assert found.numbers["cause"] == "permuted-in-part"
    assert set(found.numbers["tensors"]) == set(leaves)
    assert found.numbers["shift"] == 3
    assert "shifted by 3, the rest is not" in found.what


def test_tensors_in_two_orders_are_named():
    layer = random_layer(64)
    moved = layer | {
        "running_mean": layer["running_mean"][::-1],
        "running_var": np.roll(layer["running_var"], 3),
    }
    found = find(pair(layer, moved), NO_FILES)
    assert found.numbers["cause"] == "permuted-apart"
    assert found.detail == "The channels of each: running_mean reversed; running_var shifted by 3."


def test_a_mask_that_moves_is_no_permutation():
    layer = random_layer(8) | {"weight": np.float32([1, 0, 1, 1, 0, 1, 1, 1])}
    moved = layer | {"weight": np.float32([1, 1, 0, 1, 0, 1, 1, 1])}
    assert find(pair(layer, moved), NO_FILES) is None


def test_equal_layers_are_not_permuted():
    layer = random_layer(8)
    assert find(pair(layer, layer), NO_FILES) is None
    assert find(pair(layer, layer, Same.MOVED), NO_FILES) is None


@torch.no_grad()
def reordered(conv, norm, order, inputs=None, moved=True):
    """A convolution and its layer with their channels in another order."""
    conv, norm = copy.deepcopy(conv), copy.deepcopy(norm)
    for leaf in ("running_mean", "running_var", "weight", "bias"):
        getattr(norm, leaf).copy_(getattr(norm, leaf)[order])
    if moved:
        conv.weight.copy_(conv.weight[order])
    if inputs is not None:
        conv.weight.copy_(conv.weight[:, inputs])
    return conv, norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_convolution_is_looked_at(dtype):
    torch.manual_seed(2)
    conv, norm = nn.Conv2d(6, 16, 3), trained(nn.BatchNorm2d(16))
    order, inputs = torch.randperm(16), torch.randperm(6)
    a = side(norm.to(dtype), conv.to(dtype))

    def order_of(before, *changed):
        new_conv, new_norm = reordered(conv, norm, order, *changed)
        found = find(LayerPair(a, side(new_norm, new_conv, path="b"), before), files())
        return found.numbers["convolution"], found.detail

    assert order_of(Same.MOVED)[0] == "same order"
    assert order_of(None) == ("same order", "The convolution before it is in the same order.")
    assert order_of(Same.MOVED, inputs)[0] == "same order"
    assert order_of(Same.SAME, None, False)[0] == "not permuted"
    assert order_of(Same.MOVED, None, False)[0] == "not permuted"
    assert order_of(Same.MOVED, inputs, False)[0] == "unknown"


def network(names, seed=0, widths=None, dtype=torch.float32):
    """Trained layers by name, each with numbers of its own."""
    sizes = widths or [8] * len(names)
    return {
        name: trained(nn.BatchNorm2d(size), seed + i).to(dtype)
        for i, (name, size) in enumerate(zip(names, sizes, strict=True))
    }


def states(a, b, prefix="", finds=find):
    """What is found of each layer of two files."""
    ours = {name: layer_refs(norm, name) for name, norm in a.items()}
    theirs = {name: layer_refs(norm, prefix + name, "b") for name, norm in b.items()}
    both = files(ours.values(), theirs.values())
    found = {}
    for name, norm in b.items():
        sides = side(a[name], name=name), side(norm, name=prefix + name, path="b")
        found[name] = finds(LayerPair(*sides), both)
    return found


NAMES = ["bn1", "bn2", "bn3", "bn4", "bn5"]


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_exchanged_layers_are_named(prefix, dtype):
    a = network(NAMES)
    b = {k: copy.deepcopy(v).to(dtype) for k, v in a.items()}
    b["bn2"], b["bn4"] = b["bn4"], b["bn2"]
    found = states(a, b, prefix)
    assert [name for name in NAMES if found[name]] == ["bn2", "bn4"]
    assert found["bn2"].what == "its tensors are exchanged with those of bn4"
    assert found["bn2"].numbers["offset"] == 2


def test_a_chain_is_named():
    widths = [8, 8, 16, 16, 8, 8]
    names = [*NAMES, "bn6"]
    a = network(names, widths=widths)
    new = trained(nn.BatchNorm2d(8), 77)
    b = a | {"bn1": new, "bn2": a["bn1"], "bn5": a["bn2"], "bn6": a["bn5"]}
    found = states(a, b)
    assert found["bn1"] is None
    assert found["bn2"].what == "it holds what the layer before it had, bn1"
    assert found["bn5"].what == "it holds what the layer before it had, bn2"
    assert found["bn6"].numbers["cause"] == "chain"
    later = states(a, a | {"bn1": a["bn2"], "bn2": a["bn5"], "bn5": a["bn6"], "bn6": new})
    assert later["bn2"].what == "it holds what the layer after it had, bn5"


def test_one_layers_tensors_in_another_are_named():
    a = network(NAMES)
    found = states(a, a | {"bn5": a["bn1"]})
    assert found["bn5"].what == "it holds the tensors of bn1"
    assert found["bn5"].numbers["holds"] == "bn1"


def test_the_statistics_of_another_layer_are_named():
    a = network(NAMES)
    mixed = copy.deepcopy(a["bn5"])
    mixed.running_mean.copy_(a["bn2"].running_mean)
    mixed.running_var.copy_(a["bn2"].running_var)
    found = states(a, a | {"bn5": mixed})["bn5"]
    assert found.what == "the statistics are those of bn2"
    assert found.numbers["cause"] == "other-statistics"
    with torch.no_grad():
        mixed.weight += 0.1
    assert states(a, a | {"bn5": mixed})["bn5"] is None


def test_a_copy_of_a_network_is_told_from_a_wrong_layer():
    a = network(["online.bn1", "target.bn1"])
    found = states(a, a | {"target.bn1": a["online.bn1"]})["target.bn1"]
    assert found.numbers["branch"] is True
    assert "a network and its copy" in found.detail
    a = network(["layer1.bn1", "layer2.bn1"])
    found = states(a, a | {"layer2.bn1": a["layer1.bn1"]})["layer2.bn1"]
    assert found.numbers["branch"] is False


def trained_on(norm, seed):
    """A layer near to another, as after some more batches."""
    on = copy.deepcopy(norm)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (on.weight, on.bias, on.running_mean, on.running_var):
            tensor.mul_(1 + 0.01 * torch.rand(tensor.shape, generator=generator))
    return on


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("whole", [True, False])
def test_another_layer_of_the_second_file_is_named_where_all_moved(prefix, whole):
    a = network(NAMES)
    b = {name: trained_on(norm, seed) for seed, (name, norm) in enumerate(a.items())}
    assert not any(states(a, b, prefix).values())
    wrong = copy.deepcopy(b["bn2"] if whole else a["bn5"])
    wrong.running_mean.copy_(b["bn2"].running_mean)
    wrong.running_var.copy_(b["bn2"].running_var)
    found = states(a, b | {"bn5": wrong}, prefix)
    assert [name for name in NAMES if found[name]] == ["bn5"]
    said = "it holds the same as" if whole else "the statistics are those of"
    assert found["bn5"].what == f"{said} {prefix}bn2 in the second file"


def test_layers_that_several_share_tell_nothing():
    a = network(NAMES)
    a |= {"bn2": a["bn1"]}
    assert states(a, a | {"bn5": a["bn1"]})["bn5"] is None
    fresh = {name: nn.BatchNorm2d(8) for name in NAMES}
    assert not any(states(fresh, fresh).values())
    one = fresh | {"bn1": trained(nn.BatchNorm2d(8))}
    assert states(one, fresh)["bn1"] is None
    single = network(NAMES, widths=[1] * 5)
    assert states(single, single | {"bn5": single["bn1"]})["bn5"] is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("steps", [1, 10])
def test_training_is_no_order(dtype, steps):
    torch.manual_seed(0)
    net = nn.Sequential(*(m for _ in range(4) for m in (nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))))
    first = copy.deepcopy(net)
    optimiser = torch.optim.SGD(net.parameters(), 1e-2)
    checked = 0
    for _ in range(steps):
        optimiser.zero_grad()
        net(torch.randn(4, 4, 5, 5)).square().mean().backward()
        optimiser.step()
    a, b = (
        {n: copy.deepcopy(m).to(dtype) for n, m in one.named_modules() if hasattr(m, "eps")}
        for one in (first, net)
    )
    for found in (*states(a, b).values(), *states(b, a).values()):
        assert found is None
        checked += 1
    assert checked == 8
    assert all(each.state is not State.ORDER for each in states(a, b, finds=explain).values())
