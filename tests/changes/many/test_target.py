"""What a target is of other files, for files that were really trained and really averaged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bncli.changes.many.target import of_target
from bncli.loaders.names import under
from bncli.model.many import Made
from bncli.report import Certainty
from tests.changes.many import networks
from tests.changes.many.networks import clients, epochs, mean, network, of_buffers, opened, to
from tests.sampling import examples

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def origins(folder, states, target):
    """The rows of a target by their group."""
    *files, last = opened(folder, *states, target)
    return {row.group: row for row in of_target(files, last).origins}


def made(rows):
    return {group: row.made for group, row in rows.items()}


def all_made(one, *others):
    """That parameters and statistics are made alike."""
    return {"parameters": one, "statistics": one, "counters": others[0] if others else Made.SAME}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_file_is_found_bit_for_bit(tmp_path, dtype):
    states = [to(state, dtype) for state in epochs()]
    rows = origins(tmp_path, states, states[3])
    assert made(rows) == all_made(Made.FILE, Made.FILE)
    for group in ("parameters", "statistics"):
        assert rows[group].exact
        assert rows[group].weights == (0, 0, 0, 1, 0, 0)
        assert rows[group].what == "3.pt's, bit for bit"
        assert rows[group].certainty is Certainty.CERTAIN


def test_what_was_read_is_told_where_bits_are_claimed(tmp_path):
    """Of a large weight some values are read, and the claim is about these alone."""
    states = [networks.copied(networks.trained(network(width=40), 5, seed)) for seed in range(2)]
    row = origins(tmp_path, states, states[1])["parameters"]
    assert row.total == 40 * (3 + 40) * 9 + 4 * 40
    assert 1000 < row.values < row.total
    read = f"{row.values:,} of {row.total:,}"
    assert row.what == f"1.pt's, bit for bit in the {read} values that were read"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_file_is_found_up_to_the_rounding_of_a_dtype(tmp_path, dtype):
    for target in (to(epochs()[2], dtype), to(to(epochs()[2], dtype), torch.float32)):
        rows = origins(tmp_path, epochs(), target)
        assert made(rows) == all_made(Made.FILE, Made.FILE)
        assert not rows["statistics"].exact
        assert str(dtype).removeprefix("torch.") in rows["statistics"].what


def test_one_bit_less_is_no_file(tmp_path):
    """As a mutated file shows: the smallest step of a single value is seen."""
    target = dict(epochs()[2])
    value = target["1.running_var"].clone()
    value[3] = torch.nextafter(value[3], torch.tensor(9.0))
    target["1.running_var"] = value
    rows = origins(tmp_path, epochs(), target)
    assert rows["parameters"].exact
    assert rows["statistics"].made is Made.FILE
    assert not rows["statistics"].exact
    assert rows["statistics"].what == "2.pt's, up to rounding"


def test_files_that_are_all_alike(tmp_path):
    rows = origins(tmp_path, [epochs()[0]] * 3, epochs()[0])
    assert made(rows) == all_made(Made.SAME)
    assert rows["statistics"].what == "the same in all files, bit for bit"


def test_of_equal_files_one_is_named_and_the_others_counted(tmp_path):
    one, two = epochs()[:2]
    rows = origins(tmp_path, [one, two, two], two)
    assert rows["parameters"].what == "1.pt's (and 1 more file), bit for bit"
    assert not rows["parameters"].unique
    rows = origins(tmp_path, [one, two, two, two], two)
    assert rows["parameters"].what == "1.pt's (and 2 more files), bit for bit"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("source", [epochs, clients])
def test_the_mean_is_found_bit_for_bit_as_torch_computes_it(tmp_path, source, dtype):
    states = [to(state, dtype) for state in source()]
    rows = origins(tmp_path, states, mean(states))
    for group in ("parameters", "statistics"):
        assert rows[group].made is Made.MEAN
        assert rows[group].exact
        assert rows[group].certainty is Certainty.CERTAIN
        assert rows[group].weights == (1 / len(states),) * len(states)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_mean_is_found_however_it_was_computed(tmp_path, dtype):
    states = [to(state, dtype) for state in clients(5)]
    permuted = [states[at] for at in (3, 1, 4, 0, 2)]
    by_parts = {
        name: (permuted[0][name] + permuted[1][name]) / 5
        + (permuted[2][name] + (permuted[3][name] + permuted[4][name])) / 5
        for name in states[0]
    }
    rows = origins(tmp_path, states, to(by_parts, dtype))
    assert (rows["parameters"].made, rows["statistics"].made) == (Made.MEAN, Made.MEAN)
    assert rows["parameters"].roundings < 5


def test_what_swa_utils_averages(tmp_path):
    net = network()
    average = AveragedModel(net, use_buffers=True)
    alone = AveragedModel(network())
    states = []
    for seed in range(5):
        networks.trained(net, 15, seed)
        average.update_parameters(net)
        alone.update_parameters(net)
        states.append(networks.copied(net))
    rows = origins(tmp_path, states, average.module.state_dict())
    assert (rows["parameters"].made, rows["statistics"].made) == (Made.MEAN, Made.MEAN)
    assert rows["parameters"].exact
    rows = origins(tmp_path, states, alone.module.state_dict())
    assert rows["parameters"].made is Made.MEAN
    # Without use_buffers, the average has those of the last model.
    assert rows["statistics"].made is Made.FILE
    assert rows["statistics"].what == "4.pt's, bit for bit"


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("last", [True, False])
def test_the_mean_of_some_of_the_files(tmp_path, count, last):
    states = epochs(8)
    some = states[-count:] if last else states[1 : 1 + count]
    rows = origins(tmp_path, states, mean(some))
    first = 8 - count if last else 1
    for group in ("parameters", "statistics"):
        assert rows[group].made is Made.SUBSET
        assert f"the mean of {count} of these 8 files: {first}.pt" in rows[group].what
        assert np.allclose(sum(rows[group].weights), 1)
        assert rows[group].weights[first] == pytest.approx(1 / count)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("source", [epochs, clients])
def test_a_weighted_mean_with_its_weights(tmp_path, source, dtype):
    states = [to(state, dtype) for state in source(3)]
    counts = [120, 50, 330]
    weights = [count / sum(counts) for count in counts]
    rows = origins(tmp_path, states, networks.weighted(states, weights, dtype))
    for group in ("parameters", "statistics"):
        assert rows[group].made is Made.WEIGHTED
        assert rows[group].unique
        assert np.allclose(rows[group].weights, weights, atol=0.01)
        assert rows[group].what == "a weighted mean of these 3 files"
        assert rows[group].certainty is Certainty.CERTAIN


def test_few_statistics_are_tried_with_the_weights_of_the_parameters(tmp_path):
    torch.manual_seed(0)
    states = []
    for _ in range(9):
        model = torch.nn.Sequential(torch.nn.Linear(64, 6), torch.nn.BatchNorm1d(6))
        for leaf in (model[1].running_mean, model[1].running_var, model[1].weight.data):
            leaf.uniform_()
        states.append(model.state_dict())
    weights = np.arange(1, 10) / 45
    target = {
        name: sum(w * state[name].double() for w, state in zip(weights, states, strict=True)).to(
            value.dtype
        )
        for name, value in states[0].items()
    }
    rows = origins(tmp_path, states, target)
    assert made(rows)["statistics"] is Made.WEIGHTED
    target["1.running_var"] = target["1.running_var"] * 1.01
    assert made(origins(tmp_path, states, target))["statistics"] is Made.NONE


def test_of_files_that_are_alike_no_weights_are_claimed(tmp_path):
    one, two, three = clients(3)
    states = [one, two, two, three]
    rows = origins(tmp_path, states, networks.weighted([one, two, three], [0.5, 0.2, 0.3]))
    assert rows["statistics"].made is Made.WEIGHTED
    assert not rows["statistics"].unique
    assert rows["statistics"].what.endswith("; the weights are not unique")


def test_an_extrapolation_is_a_weighted_sum(tmp_path):
    rows = origins(tmp_path, clients(2), networks.weighted(clients(2), [1.5, -0.5]))
    assert rows["parameters"].made is Made.WEIGHTED
    assert np.allclose(rows["parameters"].weights, [1.5, -0.5], atol=1e-3)
    assert rows["parameters"].what == "a weighted sum of these 2 files"


def test_a_sum_that_was_not_divided(tmp_path):
    rows = origins(tmp_path, clients(), networks.weighted(clients(), [1, 1, 1]))
    assert made(rows) == all_made(Made.SUM, Made.SUM)


@pytest.mark.parametrize("weights", [[1 / 3] * 3, [0.2, 0.5, 0.3]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_statistics_pooled_over_all_data(tmp_path, weights, dtype):
    states = [to(state, dtype) for state in clients()]
    target = networks.weighted(states, weights, dtype)
    for name in ("1", "4"):
        total = target[f"{name}.running_mean"].double()
        target[f"{name}.running_var"] = sum(
            w
            * (
                state[f"{name}.running_var"].double()
                + (state[f"{name}.running_mean"].double() - total) ** 2
            )
            for w, state in zip(weights, states, strict=True)
        ).to(dtype)
    rows = origins(tmp_path, states, target)
    assert rows["statistics"].made is Made.POOLED
    assert np.allclose(rows["statistics"].weights, weights, atol=0.01)
    assert rows["parameters"].made is (Made.MEAN if weights[0] == weights[1] else Made.WEIGHTED)


@pytest.mark.parametrize("share", [0.9, 0.3, 0.01])
def test_a_share_of_the_initial_values_beside_a_weighted_sum(tmp_path, share):
    weights = [0.5 * (1 - share), 0.2 * (1 - share), 0.3 * (1 - share)]
    target = networks.weighted(clients(), weights)
    for name in ("1", "4"):
        target[f"{name}.running_var"] += share
    rows = origins(tmp_path, clients(), target)
    assert rows["statistics"].made is Made.INITIAL
    assert rows["statistics"].initial == pytest.approx(share, abs=1e-4)
    assert np.allclose(rows["statistics"].weights, weights, atol=0.01)
    assert rows["statistics"].certainty is Certainty.CERTAIN


def test_an_exponential_average_that_began_at_a_fresh_layer(tmp_path):
    """As an average of decay 0.99 over 60 steps is: 0.99^60 = 55% is still initial."""
    net = network(width=32)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
    average.update_parameters(net)  # the first call copies
    for step in range(60):
        networks.trained(net, 1, step, shift=2.0)
        average.update_parameters(net)
    rows = origins(tmp_path, [net.state_dict()], average.module.state_dict())
    assert rows["statistics"].made is Made.INITIAL
    assert rows["statistics"].certainty is Certainty.LIKELY
    assert rows["statistics"].initial == pytest.approx(0.55, abs=0.15)
    assert "still holds about" in rows["statistics"].what


def test_statistics_of_one_file_under_averaged_parameters(tmp_path):
    target = of_buffers(mean(clients()), clients()[1])
    rows = origins(tmp_path, clients(), target)
    assert rows["parameters"].made is Made.MEAN
    assert rows["statistics"].made is Made.FILE
    assert rows["statistics"].what == "1.pt's, bit for bit"


def test_halves_that_are_made_in_two_ways_are_told_apart(tmp_path):
    target = mean(clients())
    for name in ("1.running_var", "4.running_var"):
        target[name] = clients()[2][name]
    for name in ("0.weight", "3.weight"):
        target[name] = clients()[0][name]
    rows = origins(tmp_path, clients(), target)
    assert made(rows) == {
        "weight and bias": Made.MEAN,
        "layers before": Made.FILE,
        "running_mean": Made.MEAN,
        "running_var": Made.FILE,
        "counters": Made.SAME,
    }


def test_what_is_none_of_them_is_told_with_what_is_nearest(tmp_path):
    states = epochs(4)
    later = networks.trained(network(), 15 * 8, 99).state_dict()
    rows = origins(tmp_path, states, later)
    assert (rows["parameters"].made, rows["statistics"].made) == (Made.NONE, Made.NONE)
    assert rows["statistics"].residual > 0.1
    assert rows["statistics"].off == ("1", "4")
    assert "is nearest" in rows["statistics"].what


def test_the_layers_in_which_the_nearest_does_not_hold_are_named(tmp_path):
    target = mean(clients())
    target["4.running_mean"] = target["4.running_mean"] + 0.01
    target["4.running_var"] = target["4.running_var"] + 0.01
    rows = origins(tmp_path, clients(), target)
    assert rows["statistics"].made is Made.NONE
    assert rows["statistics"].off == ("4",)


def test_a_candidate_that_holds_in_most_layers_is_told(tmp_path):
    """One layer of three was left as the first file has it."""
    states = [
        networks.copied(networks.trained(network(depth=3), 20, seed, shift=seed))
        for seed in range(3)
    ]
    target = mean(states)
    for leaf in ("running_mean", "running_var"):
        target[f"7.{leaf}"] = states[0][f"7.{leaf}"]
    rows = origins(tmp_path, states, target)
    assert rows["statistics"].made is Made.NONE
    assert rows["statistics"].off == ("7",)
    assert rows["statistics"].what == "the mean of these 3 files in all but 1 of 3 layers"


def test_a_value_that_is_not_finite_is_none_of_them(tmp_path):
    target = mean(clients())
    target["4.running_mean"][2] = torch.nan
    rows = origins(tmp_path, clients(), target)
    assert rows["running_mean"].made is Made.NONE
    assert rows["running_mean"].off == ("4",)
    assert rows["running_var"].made is Made.MEAN


def test_files_that_hardly_differ_are_not_told_apart(tmp_path):
    """Their mean and each of them agree within the rounding of float16."""
    base = to(clients()[0], torch.float16)
    states = [dict(base) for _ in range(3)]
    for number, state in enumerate(states):
        bias = state["1.bias"].clone()
        bias[number] = torch.nextafter(bias[number], torch.tensor(9.0, dtype=torch.float16))
        state["1.bias"] = bias
    rows = origins(tmp_path, states, base)
    assert rows["parameters"].made is Made.UNTOLD
    assert rows["statistics"].made is Made.SAME


def test_another_network_is_no_sum_of_them(tmp_path):
    """With as many files as could fit anything that has few values."""
    apart = [networks.trained(network(seed), 20, seed).state_dict() for seed in range(20)]
    rows = origins(tmp_path, apart[1:], apart[0])
    assert (rows["parameters"].made, rows["statistics"].made) == (Made.NONE, Made.NONE)


def test_parts_of_one_file(tmp_path):
    state = clients()[0]
    (file,) = opened(
        tmp_path,
        {"net": state, "ema": of_buffers(state, clients()[1])},
    )
    live, copy = (
        replace(file, tensors=under(file.path, file.tensors, part)) for part in ("net", "ema")
    )
    rows = {row.group: row for row in of_target([live], copy).origins}
    assert rows["parameters"].made is Made.SAME
    assert rows["statistics"].made is Made.NONE


def test_a_target_of_one_file_that_lacks_tensors(tmp_path):
    target = {name: value for name, value in mean(clients()).items() if "running" not in name}
    *files, last = opened(tmp_path, *clients(), target)
    found = of_target(files, last)
    assert "statistics" not in {row.group for row in found.origins}


def test_other_containers_and_names_are_read_alike(tmp_path):
    """A wrapper's names, and numbers that were packed, change nothing."""
    states, target = clients(), mean(clients())
    files = opened(tmp_path, *states)
    path = tmp_path / "global.npz"
    np.savez_compressed(path, **{f"module.{name}": v.numpy() for name, v in target.items()})
    from bncli.loaders import open_file

    rows = {row.group: row for row in of_target(files, open_file(path)).origins}
    assert (rows["parameters"].made, rows["statistics"].made) == (Made.MEAN, Made.MEAN)
    assert rows["parameters"].exact


@examples(20, 100)
@given(
    st.lists(st.integers(1, 1000), min_size=2, max_size=6),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_any_weights_are_found(tmp_path_factory, counts, dtype):
    folder = tmp_path_factory.mktemp("weights")
    states = [to(state, dtype) for state in clients(6)[: len(counts)]]
    weights = [count / sum(counts) for count in counts]
    rows = origins(folder, states, networks.weighted(states, weights, dtype))
    for group in ("parameters", "statistics"):
        row = rows[group]
        assert row.made in (Made.WEIGHTED, Made.MEAN)
        if row.unique and row.made is Made.WEIGHTED:
            assert np.allclose(row.weights, weights, atol=0.02)
        if row.made is Made.MEAN:
            assert len(set(counts)) == 1


@pytest.mark.parametrize("files", [1, 3])
def test_statistics_that_were_reset_hold_no_share_of_anything(tmp_path, files):
    states = clients()[:files]
    target = mean(states)
    for name, value in target.items():
        if "running" in name:
            target[name] = torch.full_like(value, float("var" in name))
    rows = origins(tmp_path, states, target)
    assert made(rows)["statistics"] is Made.RESET
    assert rows["statistics"].what == "those of a new layer"
