"""The norms of each sample, measured: the planted one is nearest, an odd eps is fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.verify.identify import family as module
from bncli.verify.identify.family import family
from bncli.verify.identify.hypotheses import Known
from bncli.verify.identify.pair import ArraySource, View

F = torch.nn.functional
X = np.random.default_rng(0).normal(1, 2, (5, 6, 4, 3)).astype(np.float32)
NORMS = {
    "LayerNorm": lambda x, eps: F.layer_norm(x, (6, 4, 3), eps=eps),
    "InstanceNorm": lambda x, eps: F.instance_norm(x, eps=eps),
    "GroupNorm": lambda x, eps: F.group_norm(x, 3, eps=eps),
    "RMSNorm": lambda x, eps: x * torch.rsqrt(x.square().mean((1, 2, 3), keepdim=True) + eps),
}


def found_in(y, axis=1):
    view = View(ArraySource(X, "float32"), ArraySource(y, "float32"), axis)
    found, tried = family(view, Known())
    return sorted(found, key=lambda item: item.max_abs_diff), tried


@pytest.mark.parametrize("eps", [1e-5, 1e-3, 0.037])
@pytest.mark.parametrize("name", NORMS)
def test_the_norm_that_was_planted_is_nearest(name, eps):
    found, tried = found_in(NORMS[name](torch.from_numpy(X), eps).numpy())
    explaining = [item for item in found if item.told]
    # An InstanceNorm is a LayerNorm of the spatial axes too.
    others = {"LayerNorm"} if name == "InstanceNorm" else set()
    assert {item.hypothesis.mode for item in explaining} - others == {name}
    assert eps in {item.hypothesis.eps for item in explaining}
    assert all(item.hypothesis.fitted == (eps == 0.037) for item in explaining)
    assert found[0].max_abs_diff < 1e-5
    assert len(found) < tried


def test_the_difference_is_the_largest_of_all_samples():
    y = NORMS["LayerNorm"](torch.from_numpy(X), 1e-5).numpy()
    y[4, 2, 1, 0] += 0.25  # in the last sample, channel 2
    best = found_in(y)[0][0]
    assert best.max_abs_diff == pytest.approx(0.25, abs=1e-2)
    assert (best.channel, best.told) == (2, False)


def test_a_batch_norm_is_none_of_them():
    found, _ = found_in(F.batch_norm(torch.from_numpy(X), None, None, training=True).numpy())
    assert found
    assert not [item for item in found if item.told]


def test_where_samples_are_no_samples_or_too_large_none_is_tried(monkeypatch):
    y = NORMS["LayerNorm"](torch.from_numpy(X), 1e-5).numpy()
    assert found_in(y, axis=0) == ([], 0)
    monkeypatch.setattr(module, "LARGEST_SAMPLE", 6 * 4 * 3)
    assert found_in(y)[0]
    monkeypatch.setattr(module, "LARGEST_SAMPLE", 6 * 4 * 3 - 1)
    assert found_in(y) == ([], 0)
