"""Files with equal counters: ranks with statistics of their own, clients, and copies."""

from __future__ import annotations

import pytest
import torch

from bncli.changes.many.kinds import compare_many
from bncli.changes.many.ranks import counts_for
from bncli.model.many import Kind
from bncli.rulebook.many import many_findings
from tests.changes.many.networks import clients, copied, network, opened


def ranks(count=3, odd=None):
    """Replicas of one network that normalise with their own batches; one gets other data."""
    states = []
    for rank in range(count):
        net = network()
        torch.manual_seed(rank + 1)
        with torch.no_grad():
            for _ in range(50):
                net(torch.randn(4, 3, 4, 4) * (3 if rank == odd else 1))
        net[1].weight.data[0] = 0.5  # as trained: all of them alike
        states.append(copied(net))
    return states


def codes(found):
    return [(finding.code, finding.severity.value) for finding in many_findings(found)]


def test_equal_files_are_ranks_without_a_finding(tmp_path):
    found = compare_many(opened(tmp_path, *ranks()[:1] * 3))
    assert found.kind is Kind.RANKS
    assert found.ranks is None
    assert not many_findings(found)


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_the_rank_that_is_furthest_from_the_others(tmp_path, odd):
    found = compare_many(opened(tmp_path, *ranks(odd=odd)))
    assert found.kind is Kind.RANKS
    assert found.ranks.path == found.paths[odd]
    assert found.ranks.worst == "1"
    assert found.ranks.layers == ("1", "4")
    assert found.ranks.var_ratio == pytest.approx(9, rel=0.6)
    assert codes(found) == [("BN619", "warning")]


def test_rows_are_against_the_first_file(tmp_path):
    found = compare_many(opened(tmp_path, *ranks(odd=2)))
    assert found.rows[0].z is None
    assert found.rows[1].var_ratio_worst < found.rows[2].var_ratio_worst
    assert found.rows[2].worst == "1"


@pytest.mark.parametrize(("counts", "name"), [((18, 50), 0), ((2, 3), 1), ((8, 32), 0)])
def test_each_rank_scaled_the_variance_by_its_own_count(tmp_path, counts, name):
    states = [dict(ranks()[0]) for _ in range(2)]
    var = states[0]["1.running_var"]
    for state, n in zip(states, counts, strict=True):
        state["1.running_var"] = var * (n / (n - 1))
    found = compare_many(opened(tmp_path, *states))
    assert found.ranks.layers == ("1",)
    n, m = counts
    ratio = n / (n - 1) * (m - 1) / m
    assert found.ranks.factor in (pytest.approx(ratio), pytest.approx(1 / ratio))
    assert set(found.ranks.counts) == set(counts)


def test_a_ratio_that_no_small_counts_give_is_not_explained():
    assert counts_for(18 / 17 * 49 / 50) == (18, 50)
    assert counts_for(50 / 49 * 17 / 18) == (50, 18)
    assert counts_for(3.0) is None
    assert counts_for(1.0001234) is None


def test_clients_are_no_ranks(tmp_path):
    found = compare_many(opened(tmp_path, *clients()))
    assert found.kind is Kind.CLIENTS
    assert codes(found) == [("BN619", "info")]


def test_files_without_counters_are_compared_alike(tmp_path):
    bare = [
        {name: value for name, value in state.items() if "tracked" not in name} for state in ranks()
    ]
    found = compare_many(opened(tmp_path, *bare))
    assert found.kind is Kind.RANKS
    assert found.rows[0].counter is None
    assert found.ranks.layers == ("1", "4")


def test_parameters_that_tell_nothing_make_no_ranks(tmp_path):
    """Weights of 1 and biases of 0, and nothing in front: any two files have these."""
    states = []
    for seed in range(2):
        torch.manual_seed(seed)
        norm = torch.nn.BatchNorm1d(4)
        norm(torch.randn(8, 4))
        states.append(copied(norm))
    found = compare_many(opened(tmp_path, *states))
    assert found.kind is Kind.APART
    assert not many_findings(found)
