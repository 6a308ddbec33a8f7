"""Which loaders divide their data by themselves, and what becomes of samples that are too many."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset

from bncli.live.samplers import sampler_of, uneven_samples

SET = TensorDataset(torch.arange(14.0).reshape(7, 2))


def sampler(rank=1, ranks=3, **flags):
    return DistributedSampler(SET, ranks, rank, shuffle=False, **flags)


@pytest.mark.parametrize(
    ("loader", "divides"),
    [
        (DataLoader(SET, 2, sampler=sampler()), True),
        (DataLoader(SET, batch_sampler=BatchSampler(sampler(), 2, drop_last=False)), True),
        (DataLoader(SET, 2), False),
        (DataLoader(SET, 2, shuffle=True), False),
        (DataLoader(SET, None), False),
        ([torch.ones(3)], False),
    ],
)
def test_a_distributed_sampler_divides(loader, divides):
    assert (sampler_of(loader) is not None) is divides


@pytest.mark.parametrize("drop_last", [False, True])
def test_what_a_sampler_does_so_that_all_ranks_have_as_many(drop_last):
    said = {}
    for ranks in (1, 2, 3, 5, 7, 8):
        each = [sampler(rank, ranks, drop_last=drop_last) for rank in range(ranks)]
        more = sum(map(len, each)) - len(SET)
        said[more] = uneven_samples(each[0])
    if drop_last:
        assert said == {
            0: "", -1: "leaves out 1 sample", -2: "leaves out 2 samples",
            -7: "leaves out 7 samples",
        }  # fmt: skip
    else:
        assert said == {
            0: "", 1: "gives 1 sample twice", 2: "gives 2 samples twice",
            3: "gives 3 samples twice",
        }  # fmt: skip
