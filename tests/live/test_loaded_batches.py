"""The batches of code: which of them a shard takes, and what tells ranks' batches apart."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from bncli.errors import ModelError
from bncli.live.batch_forms import BatchForm
from bncli.live.imports import code_name
from bncli.live.loaded_batches import LoadedBatches

SET = TensorDataset(torch.arange(14.0).reshape(7, 2))
CODE = code_name("code.py:loader")


def sampler(rank=1, ranks=3):
    return DistributedSampler(SET, ranks, rank, shuffle=False)


def source_of(loader, shard=(0, 1)):
    return LoadedBatches(CODE, loader, BatchForm(None, None), 0, shard)


def test_a_divided_loader_has_its_batches_at_the_shards_places():
    loader = DataLoader(SET, 2, sampler=sampler())
    source = source_of(loader, (1, 3))
    assert source.length == 6  # two batches of each of three ranks
    every = [*source.batches(lambda number: number % 3 == 1)]
    assert [batch is not None for batch in every] == [False, True, False] * 2
    taken = torch.cat([batch.args[0] for batch in every if batch is not None])
    assert taken.tolist() == SET.tensors[0][[*sampler()]].tolist()
    assert source.mark() is None


@pytest.mark.parametrize("shard", [(0, 3), (1, 2)])
def test_another_ranks_sampler_is_refused(shard):
    loader = DataLoader(SET, 2, sampler=sampler())
    source = source_of(loader, shard)
    with pytest.raises(ModelError, match="its DistributedSampler is that of rank 1 of 3"):
        next(source.batches(lambda _: True))


def test_one_process_takes_what_it_is_given():
    loader = DataLoader(SET, 2, sampler=sampler())
    source = source_of(loader)
    assert len([*source.batches()]) == source.length == 2
    assert isinstance(source.mark(), int)


def test_all_batches_are_taken_of_code_that_divides_the_data_itself():
    """Each at a place of its shard; the digests of the first pass are kept, and no others."""
    batches = [torch.full((2, 2), float(i)) for i in range(3)]
    source = source_of(batches, (1, 2))
    taken = [batch for batch in source.batches(lambda number: number % 2 == 1) if batch]
    assert len(taken) == 1
    assert (source.length, source.digests) == (3, [])
    source.divides_itself = True
    assert source.length == 6
    for _ in range(2):
        every = [*source.batches(lambda number: number % 2 == 1)]
        assert [batch is not None for batch in every] == [False, True] * 3
        assert [batch.args[0][0, 0] for batch in every if batch is not None] == [0, 1, 2]
        assert len(set(source.digests)) == len(source.digests) == 3
    other = source_of([batches[1]], (0, 2))
    assert other.mark() == source.digests[1]


def test_code_without_batches_has_a_mark_of_its_own():
    assert source_of([]).mark() == 0
