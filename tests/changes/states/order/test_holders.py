"""Which layer of the first file holds some statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bncli.changes.pair import LayerPair
from bncli.changes.states.order.holders import holder_of
from bncli.model import TensorRef
from tests.changes.networks import files, layer_refs, side, trained

DTYPES = dict.fromkeys(("running_mean", "running_var", "weight", "bias"), "float32")


def vectors(norm):
    return {leaf: getattr(norm, leaf).detach().numpy().astype(float) for leaf in DTYPES}


def holder(a, b, name):
    """Of the layer of that name in two files of layers by name."""
    ours = [layer_refs(norm, own) for own, norm in a.items()]
    theirs = [layer_refs(norm, own, "b") for own, norm in b.items()]
    pair = LayerPair(side(a[name], name=name), side(b[name], name=name, path="b"))
    both = files(ours, theirs)
    return holder_of(pair, both, vectors(a[name]), vectors(b[name]), DTYPES)


@pytest.fixture
def a():
    return {f"bn{i}": trained(nn.BatchNorm2d(4), i) for i in range(5)}


def test_the_layer_is_found_with_its_vectors(a):
    found = holder(a, a | {"bn3": a["bn1"]}, "bn3")
    assert (found.name, found.offset, found.swapped, found.chain) == ("bn1", -2, False, "")
    assert np.array_equal(found.vectors["weight"], vectors(a["bn1"])["weight"])


def test_own_or_unknown_statistics_have_no_holder(a):
    assert holder(a, a, "bn3") is None
    assert holder(a, a | {"bn3": trained(nn.BatchNorm2d(4), 99)}, "bn3") is None


def test_a_variance_alone_is_not_enough(a):
    mixed = trained(nn.BatchNorm2d(4), 99)
    mixed.running_var.copy_(a["bn1"].running_var)
    assert holder(a, a | {"bn3": mixed}, "bn3") is None
    with torch.no_grad():
        mixed.running_mean.copy_(a["bn1"].running_mean)
    assert holder(a, a | {"bn3": mixed}, "bn3").name == "bn1"


def test_layers_with_one_variance_are_told_apart_by_their_means(a):
    for norm in a.values():
        norm.running_var.copy_(a["bn0"].running_var)
    own = trained(nn.BatchNorm2d(4), 99)
    found = holder(a | {"bn3": own}, a | {"bn3": a["bn1"]}, "bn3")
    assert found.name == "bn1"


def test_the_index_reads_one_tensor_of_each_layer_of_the_width_once(a, monkeypatch):
    read = []
    plain = TensorRef.read
    monkeypatch.setattr(
        TensorRef, "read", lambda self, *more: (read.append(self.name), plain(self, *more))[1]
    )
    a |= {"wide": trained(nn.BatchNorm2d(9), 50)}
    b = {
        name: trained(nn.BatchNorm2d(n.num_features), 60 + i)
        for i, (name, n) in enumerate(a.items())
    }
    refs = [layer_refs(norm, name) for name, norm in a.items()]
    both = files(refs)
    pairs = [LayerPair(side(a[name], name=name), side(b[name], name=name, path="b")) for name in a]
    read.clear()
    for pair, (name, norm) in zip(pairs, b.items(), strict=True):
        if name != "wide":
            assert holder_of(pair, both, vectors(a[name]), vectors(norm), DTYPES) is None
    assert sorted(read) == [f"bn{i}.running_var" for i in range(5)]


def test_what_cannot_be_read_is_passed_over(a):
    refs = [layer_refs(norm, name) for name, norm in a.items()]
    refs[1] = replace(refs[1], running_var=replace(refs[1].running_var, storage=None))
    pair = LayerPair(side(a["bn3"], name="bn3"), side(a["bn1"], name="bn3", path="b"))
    found = holder_of(pair, files(refs), vectors(a["bn3"]), vectors(a["bn1"]), DTYPES)
    assert found is None
