"""Which loaders divide their data by themselves, and how many samples come twice."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset

from bncli.errors import ModelError
from bncli.live.batch_forms import BatchForm
from bncli.live.data_source import LoadedBatches
from bncli.live.imports import code_name
from bncli.live.samplers import repeated_samples, sampler_of

SET = TensorDataset(torch.arange(14.0).reshape(7, 2))
CODE = code_name("code.py:loader")


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


def test_what_is_repeated_is_what_all_ranks_give_too_much():
    for ranks in (1, 2, 3, 7, 8):
        for drop_last in (False, True):
            each = [sampler(rank, ranks, drop_last=drop_last) for rank in range(ranks)]
            given = [index for one in each for index in one]
            assert repeated_samples(each[0]) == max(0, len(given) - len(SET))


def test_a_divided_loader_has_its_batches_at_the_shards_places():
    loader = DataLoader(SET, 2, sampler=sampler())
    source = LoadedBatches(CODE, loader, BatchForm(None, None), 0, (1, 3))
    assert source.length == 6  # two batches of each of three ranks
    every = [*source.batches(lambda number: number % 3 == 1)]
    assert [batch is not None for batch in every] == [False, True, False] * 2
    taken = torch.cat([batch.args[0] for batch in every if batch is not None])
    assert taken.tolist() == SET.tensors[0][[*sampler()]].tolist()
    assert source.mark() is None


@pytest.mark.parametrize("shard", [(0, 3), (1, 2)])
def test_another_ranks_sampler_is_refused(shard):
    loader = DataLoader(SET, 2, sampler=sampler())
    source = LoadedBatches(CODE, loader, BatchForm(None, None), 0, shard)
    with pytest.raises(ModelError, match="its DistributedSampler is that of rank 1 of 3"):
        next(source.batches(lambda _: True))


def test_one_process_takes_what_it_is_given():
    loader = DataLoader(SET, 2, sampler=sampler())
    source = LoadedBatches(CODE, loader, BatchForm(None, None), 0)
    assert len([*source.batches()]) == source.length == 2
    assert isinstance(source.mark(), int)
