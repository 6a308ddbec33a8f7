"""What many files are taken for."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from bncli.changes.many.kinds import compare_many
from bncli.model.many import Counted, Kind
from bncli.report import Certainty
from bncli.rulebook.many import many_findings
from tests.changes.many.networks import clients, copied, epochs, mean, network, opened, trained


def counted(state, *counts):
    return state | {
        f"{layer}.num_batches_tracked": torch.tensor(count)
        for layer, count in zip(("1", "4"), counts, strict=True)
    }


def kind(folder, *states):
    return compare_many(opened(folder, *states)).kind


def test_the_counters_decide(tmp_path):
    one, two, three = epochs(3)
    assert kind(tmp_path, one, two, three) is Kind.SERIES
    assert kind(tmp_path, three, one, two) is Kind.SERIES
    assert kind(tmp_path, one, one, one) is Kind.RANKS
    assert kind(tmp_path, *clients()) is Kind.CLIENTS
    # A layer that did not count, as a frozen one, is part of a series; one that counts back is not.
    assert kind(tmp_path, counted(one, 5, 1), counted(two, 5, 2)) is Kind.SERIES
    assert kind(tmp_path, counted(one, 5, 1), counted(two, 4, 2)) is Kind.APART
    assert (
        kind(tmp_path, counted(one, 1, 1), counted(two, 1, 1), counted(three, 2, 2)) is Kind.APART
    )


def test_the_last_file_may_be_there_twice(tmp_path):
    """As a run that keeps its last file under a name of its own leaves it."""
    one, two, three = epochs(3)
    assert kind(tmp_path, one, two, three, three) is Kind.SERIES
    other = {name: value + 0.01 if "mean" in name else value for name, value in three.items()}
    assert kind(tmp_path, one, two, three, other) is Kind.APART


def test_networks_that_were_trained_apart_are_no_series(tmp_path):
    """Counters alone would make them one."""
    nets = [copied(trained(network(seed, width=16, depth=4), 10 * seed, 0)) for seed in (1, 2, 3)]
    found = compare_many(opened(tmp_path, *nets))
    assert (found.kind, found.related) == (Kind.APART, False)
    run = network(1, width=16, depth=4)
    states = [copied(trained(run, 10, seed)) for seed in range(3)]
    assert kind(tmp_path, *states) is Kind.SERIES
    # Where most files are of one run, they are judged alone, and the others named.
    for at in (0, 1, 3):
        files = [*states[:at], nets[2], *states[at:]]
        found = compare_many(opened(tmp_path, *files))
        assert (found.kind, len(found.paths), found.related) == (Kind.SERIES, 3, None)
        (stranger,) = found.strangers
        assert stranger.path == str(tmp_path / f"{at}.pt")
        assert [row.path for row in found.rows] == [*found.paths, stranger.path]
        (finding,) = many_findings(found)
        assert (finding.code, finding.path) == ("BN621", stranger.path)
        assert finding.places == ("1", "4", "7", "10")
    pair = compare_many(opened(tmp_path, states[0], nets[2], states[2], nets[1]))
    assert (pair.kind, pair.related, pair.strangers) == (Kind.APART, False, ())
    assert pair.runs[0] == (str(tmp_path / "0.pt"), str(tmp_path / "2.pt"))
    assert compare_many(opened(tmp_path, *clients(width=16))).related is not False


def test_a_target_is_never_part_of_a_series(tmp_path):
    *files, last = opened(tmp_path, *epochs(4), mean(epochs(4)))
    found = compare_many(files, last)
    assert found.kind is Kind.TARGET
    assert found.target == str(last.path)
    assert len(found.paths) == 4


def test_what_only_some_files_have_is_counted(tmp_path):
    short = {name: value for name, value in epochs(3)[1].items() if not name.startswith("4.")}
    found = compare_many(opened(tmp_path, epochs(3)[0], short, epochs(3)[2]))
    assert (found.layers, found.unmatched) == (1, 1)
    assert found.lacking == ((str(tmp_path / "1.pt"), ("4",)),)


def test_files_without_common_layers_are_no_series(tmp_path):
    other = {f"x.{name}": value for name, value in copied(torch.nn.LayerNorm(4)).items()}
    found = compare_many(opened(tmp_path, epochs(3)[0], other))
    assert (found.layers, found.rows) == (0, ())


def test_layers_are_matched_through_wrappers(tmp_path):
    first, second = epochs(2)
    wrapped = {f"module.{name}": value for name, value in second.items()}
    found = compare_many(opened(tmp_path, first, {"model": wrapped}))
    assert (found.kind, found.layers) == (Kind.SERIES, 2)
    assert found.sure is Certainty.CERTAIN


def test_layers_that_are_matched_by_their_order_are_likely(tmp_path):
    states = [copied(trained(network(depth=4), 5 * count, count)) for count in (1, 2)]
    names = {f"{number}": f"stage{number}.norm_{number}" for number in range(20)}
    renamed = {
        f"{names[name.split('.')[0]]}.{name.split('.')[1]}": value
        for name, value in states[1].items()
    }
    found = compare_many(opened(tmp_path, states[0], renamed))
    assert found.layers == 4
    assert found.sure is Certainty.LIKELY


def without_counters(states):
    return [
        {name: value for name, value in state.items() if "num_batches" not in name}
        for state in states
    ]


def test_without_counters_the_order_is_assumed_where_the_weights_show_it(tmp_path):
    found = compare_many(opened(tmp_path, *without_counters(epochs(5))))
    assert (found.kind, found.counted, found.sure) == (
        Kind.SERIES,
        Counted.NONE,
        Certainty.LIKELY,
    )
    one, two, three, four, _ = without_counters(epochs(5))
    found = compare_many(opened(tmp_path, three, one, four, two))
    assert (found.kind, found.counted, found.ranks) == (Kind.APART, Counted.NONE, None)
    assert many_findings(found) == []
    found = compare_many(opened(tmp_path, *without_counters(clients())))
    assert (found.kind, many_findings(found)) == (Kind.APART, [])


@pytest.mark.parametrize("rate", [0.02, 0.1])
@pytest.mark.parametrize("before", [0, 60])
def test_clients_that_trained_for_other_numbers_of_batches_are_no_series(tmp_path, rate, before):
    start = trained(network(width=16, depth=4), before, 9)
    own = [copied(trained(deepcopy(start), 20 + 5 * at, at, lr=rate)) for at in range(4)]
    found = compare_many(opened(tmp_path, *own))
    assert (found.kind, found.counted, found.sure) == (
        Kind.CLIENTS,
        Counted.GROWING,
        Certainty.LIKELY,
    )
    assert many_findings(found) == []


@pytest.mark.parametrize("rate", [1e-5, 0.01, 0.1])
@pytest.mark.parametrize("before", [0, 200])
@pytest.mark.parametrize("steps", [5, 40])
def test_a_run_is_never_taken_for_clients(tmp_path, rate, before, steps):
    """Not late in training either, where weights wander around one place."""
    net = trained(network(width=8, depth=3), before, 9)
    states = [copied(trained(net, steps, at, lr=rate)) for at in range(4)]
    assert kind(tmp_path, *states) is Kind.SERIES


def test_a_run_that_was_thrown_back_once_is_no_clients(tmp_path):
    """Its middle files are turned back, but they are not equally far from each other."""
    torch.manual_seed(0)
    start = copied(trained(network(), 30, 0))
    far = {name: 0.3 * torch.randn_like(value.float()) for name, value in start.items()}
    states = [
        {
            name: value + 10 * at
            if "num" in name
            else value + share * far[name] + 0.02 * torch.rand_like(value)
            for name, value in start.items()
        }
        for at, share in enumerate((0, 0.6, 1, 0, 0.1, 0))
    ]
    assert kind(tmp_path, *states) is Kind.SERIES


def test_fine_tunings_of_one_network_are_no_series(tmp_path):
    """Some of them froze a part, so that the sums of their counters grow."""
    start = trained(network(width=16, depth=4), 30, 0)
    states = [copied(start)]
    for seed, frozen in enumerate((("1", "4"), ("4",), ())):
        state = copied(trained(deepcopy(start), 40, seed + 1, lr=0.1))
        old = {name: value for name, value in states[0].items() if name.split(".")[0] in frozen}
        states.append(state | old)
    found = compare_many(opened(tmp_path, *states))
    assert (found.kind, found.jumps) == (Kind.APART, ())
    assert many_findings(found) == []


def test_weights_that_wander_make_a_series_likely(tmp_path):
    """So far apart in batches, a run around one place and clients of one start look alike."""
    torch.manual_seed(0)
    start = copied(trained(network(), 30, 0))
    states = [
        {
            name: value + 100 * at if "num" in name else value + 0.1 * torch.rand_like(value)
            for name, value in start.items()
        }
        for at in range(4)
    ]
    found = compare_many(opened(tmp_path, *states))
    assert (found.kind, found.wanders, found.sure) == (Kind.SERIES, True, Certainty.LIKELY)
    assert not compare_many(opened(tmp_path, *epochs(4))).wanders
