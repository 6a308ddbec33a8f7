"""What no training can have left, against training itself, PyTorch's bits and hypothesis."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.rulebook.checkpoint import file_findings, layer_findings
from bncli.rulebook.layers import Checkpoint
from bncli.rulebook.origin import all_zero, garbage, may_be_decayed, same_bits, untrained_statistics
from bncli.rulebook.summaries import summary
from tests.rulebook.faults import POINTERS, TEXT
from tests.rulebook.layers import bits, codes, f4, layer, only

ZEROS = {"running_mean": np.zeros(4, np.float32), "running_var": np.zeros(4, np.float32)}


# Training, whatever its inputs are.


@st.composite
def runs(draw):
    """Statistics after batches of inputs of any unit, in channels some of which die."""
    channels = draw(st.integers(2, 6))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    unit = 10.0 ** rng.uniform(-12, 17, channels)
    offset = rng.normal(size=channels) * 10.0 ** rng.uniform(-2, 1, channels) * unit
    steps = draw(st.integers(1, 60)) * draw(st.sampled_from([1, 1, 20]))
    death = np.where(rng.random(channels) < 0.4, rng.integers(0, steps + 1, channels), steps)
    momentum = draw(st.sampled_from([0.01, 0.1, 0.3, 0.5, 1.0]))
    mean, var = torch.zeros(channels), torch.ones(channels)
    for step in range(steps):
        x = (rng.normal(size=(16, channels)) * unit + offset) * (step < death)
        torch.nn.functional.batch_norm(
            torch.from_numpy(x.astype(np.float32)), mean, var, training=True, momentum=momentum
        )
    return mean.numpy(), var.numpy(), steps, momentum


@settings(max_examples=60, deadline=None)
@given(runs())
def test_training_leaves_nothing_that_is_called_uninitialised_or_copied(run):
    mean, var, steps, momentum = run
    made = layer(
        channels=len(mean), counter=steps, momentum=momentum, running_mean=mean, running_var=var
    )
    assert garbage(made) is None
    assert same_bits(made) is None
    assert not all_zero(made) or not mean.any()


def test_times_in_nanoseconds_beside_a_column_of_zeros_are_no_garbage():
    """A table's raw columns, normalised as they come."""
    rng = np.random.default_rng(1)
    mean, var = torch.zeros(3), torch.ones(3)
    for _ in range(600):
        times = 1.7e18 + rng.uniform(0, 1e17, 256)
        x = np.stack([times, np.zeros(256), rng.normal(size=256)], axis=1)
        torch.nn.functional.batch_norm(
            torch.from_numpy(x.astype(np.float32)), mean, var, training=True
        )
    assert 0 < var[1] < 1e-20
    assert var[0] > 1e30
    made = layer(channels=3, counter=600, running_mean=mean.numpy(), running_var=var.numpy())
    assert garbage(made) is None


@pytest.mark.parametrize("last", [860, 900, 960])
def test_a_layer_whose_channels_died_one_by_one_is_no_memory(last):
    """Hundreds of subnormal values on their way down, some of them alike."""
    rng = np.random.default_rng(last)
    channels = 512
    mean, var = torch.randn(channels), torch.rand(channels) + 0.5
    death = torch.from_numpy(rng.integers(0, 100, channels))
    for step in range(last):
        x = torch.randn(4, channels) * (step < death)
        torch.nn.functional.batch_norm(x, mean, var, training=True)
    assert ((var > 0) & (var < 2.0**-126)).sum() > 20
    made = layer(
        channels=channels, counter=last, running_mean=mean.numpy(), running_var=var.numpy()
    )
    assert garbage(made) is None
    assert (
        garbage(layer_of(None, {"running_mean": mean.numpy(), "running_var": var.numpy()})) is None
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dead_channels_in_half_precision_are_no_memory(dtype):
    mean, var = torch.ones(6, dtype=dtype), torch.ones(6, dtype=dtype)
    for _ in range(1200):
        mean, var = mean * 0.9, var * 0.9
    mean[0] = var[0] = 1
    vectors = {"running_mean": mean.float().numpy(), "running_var": var.float().numpy()}
    if dtype == torch.float16:
        vectors = {leaf: value.astype(np.float16) for leaf, value in vectors.items()}
    name = str(dtype).removeprefix("torch.")
    assert garbage(layer(channels=6, counter=1200, dtype=name, **vectors)) is None
    vectors["weight"] = np.ones(6, vectors["running_mean"].dtype)
    made = layer(channels=6, counter=1200, dtype=name, **vectors)
    assert not untrained_statistics(made)


POINTED = bits(0xE4A01C10, 0x00007F12, 0x3F000000, 0x3E800000)


@pytest.mark.parametrize(
    "vectors",
    [
        {
            "running_mean": POINTED,
            "running_var": bits(0x3F000000, 0x00007F12, 0x3F000000, 0x3F100000),
        },
        {"running_mean": bits(0x3F000000, 0, 1, 0), "running_var": bits(0, 1, 0, 2), "counter": 0},
        {"running_var": bits(0, 1, 2, 3)},
        {"running_var": bits(0x3F000000, 5, 0x3F000000, 0x3F100000), "counter": 140391344971072},
        {"weight": bits(0x3F000000, 5, 0x3F000000, 0x3F100000), "counter": -4620580018448960114},
    ],
)
def test_small_integers_and_pointers(vectors):
    assert codes(layer(**vectors)) == {"BN209"}


@pytest.mark.parametrize("momentum", [0.5, 0.3, 0.1])
def test_a_variance_is_gone_only_where_the_counter_allows_it(momentum):
    """PyTorch on the CPU, whose subnormal numbers are kept, so that it takes at least as long."""
    for steps in (10, 100, 400, 1000):
        mean, var = torch.zeros(2), torch.ones(2)
        for _ in range(steps):
            torch.nn.functional.batch_norm(
                torch.zeros(4, 2), mean, var, training=True, momentum=momentum
            )
        made = layer(channels=2, counter=steps, momentum=momentum, running_var=var.numpy())
        assert may_be_decayed(made) == bool((var < 2.0**-126).all())


# Exactly 0.


@pytest.mark.parametrize("counter", [None, 0, 1, 100, 50_000])
@pytest.mark.parametrize("affine", ["trained", "none", "initial"])
def test_zeros_under_weights_that_are_live_were_never_written(counter, affine):
    vectors = dict(ZEROS)
    if affine == "none":
        vectors |= {"weight": None, "bias": None}
    elif affine == "initial":
        vectors |= {"weight": np.ones(4, np.float32), "bias": np.zeros(4, np.float32)}
    made = layer_of(counter, vectors)
    assert codes(made) == {"BN208"}
    evidence = only(made, "BN208").evidence
    weight = 1.0 if affine == "none" else np.abs(made.weight).max()
    assert evidence["scale_max"] == pytest.approx(weight / math.sqrt(1e-5))
    assert evidence["num_batches_tracked"] == counter
    # 0.9^50000 is 0 in float32, so that inputs of 0 explain it as well.
    assert evidence["cause"] == (
        "zero-filled-or-zero-input" if counter == 50_000 else "zero-filled"
    )


def layer_of(counter, vectors):
    """A layer with vectors that may be missing."""
    made = layer(counter=counter, **{k: v for k, v in vectors.items() if v is not None})
    gone = {leaf for leaf, value in vectors.items() if value is None}
    state = type(made.state)(
        **{
            name: None if name in gone else getattr(made.state, name)
            for name in type(made.state).__dataclass_fields__
        }
    )
    shapes = {leaf: shape for leaf, shape in made.shapes.items() if leaf not in gone}
    return type(made)(state, shapes, made.dtypes)


def test_a_layer_that_died_with_its_weights_may_have_decayed_to_0():
    dead = f4(1e-9, -1e-8, 3e-9, 1e-9)
    assert codes(layer(counter=2000, weight=dead, **ZEROS)) == {"BN404"}
    assert codes(layer(counter=100, weight=dead, **ZEROS)) == {"BN208"}
    assert codes(layer(counter=None, weight=dead, **ZEROS)) == {"BN404"}


def test_one_mean_or_variance_makes_zeros_something_else():
    assert codes(layer(**ZEROS | {"running_mean": f4(0, 0, 0.5, 0)})) == {"BN408"}
    assert "BN208" not in codes(layer(**ZEROS | {"running_var": f4(0, 0, 0, 1)}))
    assert "BN208" in codes(layer(**ZEROS, bias=f4(0, np.nan, 0, 1)))
    assert "BN201" in codes(layer(**ZEROS, bias=f4(0, np.nan, 0, 1)))


def test_half_precision_loses_variances_and_not_means():
    half = {leaf: value.astype(np.float16) for leaf, value in ZEROS.items()}
    assert codes(layer(dtype="float16", **half)) == {"BN208"}
    means = np.ones(4, np.float16)
    assert codes(layer(dtype="float16", **half | {"running_mean": means})) == {"BN502"}


# Memory.


@pytest.mark.parametrize(
    "values",
    [
        f4(0.5, 1e-38, 0.2, -4e30),
        f4(0.5, 1e-38, 0.2, 3e30),
        f4(0.5, 1e-25, 0.2, -1e21),
        f4(0.5, 0.1, 0.2, -4e30),
        POINTERS.numpy()[:4],
        POINTERS.numpy()[4:],
        TEXT.numpy()[:4],
        bits(0x00007F12, 0x00007F12, 0x3F000000, 0xBF000000),
        bits(0x00107F12, 0x00007F12, 0x00217F12, 0x6F000000),
        bits(0x7F812345, 0x3F000000, 0x3E000000, 0x3E800000),
        bits(0xFFC00001, 0x3F000000, 0x3E000000, 0x3E800000),
    ],
    ids=lambda values: " ".join(f"{value:g}" for value in values),
)
def test_memory_in_a_mean(values):
    assert codes(layer(running_mean=values)) == {"BN209"}


@pytest.mark.parametrize(
    "values",
    [
        f4(1e-38, 1e30, 0.5, 0.7),
        f4(1.0, 1e30, 0.5, 0.7),
        f4(1.0, -1e30, 0.5, 0.7),
        f4(1e-38, 1e30, 1e30, 1e30),
        bits(0x00007F12, 0, 0x00007F12, 0),
        TEXT.numpy()[2:6],
    ],
    ids=lambda values: " ".join(f"{value:g}" for value in values),
)
def test_memory_in_a_variance(values):
    """One finding, in the place of all that its values would be blamed for else."""
    assert codes(layer(running_var=values)) == {"BN209"}
    assert codes(layer(running_var=values, counter=0)) == {"BN209"}


@pytest.mark.parametrize(
    "vectors",
    [
        {"running_var": f4(5.605e-45, 1.47e11, 0.5, 0.7)},  # a dead channel, and unscaled inputs
        {"running_var": f4(5.605e-45, 1e32, 1, 1), "running_mean": f4(5.605e-45, 1e16, 1, 1)},
        {
            "running_var": f4(1, 1.8e24, 1, 1),
            "running_mean": f4(1, 3.2e7, 1, 1),
        },  # by chance
        {"running_var": f4(1e28, 3e28, 2e29, 5e28)},  # an explosion spares no channel
        {"running_var": f4(9.8e-18, 14627, 0.5, 3.0)},
        {"running_var": f4(3e-40, 4e-40, 0.5, 3.0)},  # on their way down
        {"running_mean": f4(1.4e-45, 1.7e18, 0, 0), "running_var": f4(1, 1e34, 1e-45, 0)},
        {"running_mean": f4(1e24, 3e24, 2e23, 1e23), "running_var": f4(*[np.inf] * 4)},
    ],
)
def test_what_training_leaves_though_it_is_odd(vectors):
    assert garbage(layer(**vectors)) is None


@given(st.integers(0, 2**32 - 1))
def test_a_nan_of_arithmetic_is_told_by_its_bits(number):
    """The first bit of the mantissa alone or all of them, or the first ones after a cast."""
    value = np.array([number | 0x7F800001], np.uint32)
    ones = f"{int(value[0]) & 0x7FFFFF:023b}".rstrip("0")
    made = layer(channels=1, running_mean=value.view(np.float32))
    assert (garbage(made) is not None) == ("0" in ones)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_arithmetic_in_torch_and_numpy_makes_no_odd_nan(dtype):
    inf = torch.tensor(math.inf)
    made = [inf - inf, torch.tensor(0.0) / 0, torch.tensor(-1.0).sqrt(), -(inf - inf)]
    made += [torch.tensor(math.nan), (inf * 0).half().float(), (inf * 0).bfloat16().float()]
    values = torch.stack([value.to(dtype) for value in made]).numpy()
    name = str(dtype).removeprefix("torch.")
    assert garbage(layer(channels=len(values), running_mean=values, dtype=name)) is None


@pytest.mark.parametrize("counter", [2**63 - 1, -(2**40), 3_000_000_000])
def test_a_counter_of_no_training_tells_where_a_nan_is_from(counter):
    assert codes(layer(running_var=f4(1, np.nan, 1, 1), counter=counter)) == {"BN209"}
    assert codes(layer(running_var=f4(1, np.nan, 1, 1), counter=10**9)) == {"BN201"}
    assert codes(layer(counter=counter)) == set()


# NaN and Inf where nothing was counted.


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("leaf", ["running_mean", "running_var", "weight", "bias"])
def test_with_a_counter_of_0_no_batch_made_it(leaf, value):
    code = "BN201" if np.isnan(value) else "BN202"
    values = f4(0.5, value, 0.25, 1)
    finding = only(layer(counter=0, **{leaf: values}), code)
    assert finding.evidence["cause"] == "never-filled-or-edited"
    assert finding.evidence["num_batches_tracked"] == 0
    assert "num_batches_tracked is 0" in finding.detail
    assert finding.extent == ((leaf, 1, 1),)
    for counter in (100, None):
        finding = only(layer(counter=counter, **{leaf: values}), code)
        assert finding.evidence["cause"] != "never-filled-or-edited"
    fresh = {"running_mean": f4(0, 0, 0, 0), "running_var": f4(1, 1, 1, 1)} | {leaf: values}
    if leaf.startswith("running"):
        fresh[leaf] = np.where(np.isfinite(values), float(leaf == "running_var"), value)
    said = only(layer(counter=0, **fresh), code).detail
    assert "Unless" not in said


# One tensor twice.


@pytest.mark.parametrize(
    "values", [f4(0, 0, 0, 0), f4(1, 1, 1, 1), f4(0.3, 0.3, 0.3, 0.3), f4(0, 1, 1, 0.5)]
)
def test_constants_are_no_copy_of_each_other(values):
    assert same_bits(layer(running_mean=values, running_var=values)) is None


def test_dead_channels_stop_at_one_value_in_both_statistics():
    floor = 5.605193857299268e-45
    values = f4(floor, floor, 0.3, floor)
    assert same_bits(layer(running_mean=values, running_var=values)) is None


def test_a_layer_that_changes_nothing_is_no_mistake():
    """weight sqrt(running_var + eps) and bias running_mean give y = x."""
    mean, var = f4(0.3, -0.2, 1.5, 0.7), f4(1.5, 0.2, 0.4, 2)
    made = layer(
        running_mean=mean, bias=mean, running_var=var, weight=np.sqrt(var + np.float32(1e-5))
    )
    assert codes(made) == set()


@pytest.mark.parametrize("narrow", ["float16", "bfloat16"])
def test_bits_agree_after_a_cast(narrow):
    mean = np.random.default_rng(3).normal(size=12).astype(np.float32)
    cast = torch.from_numpy(mean).to(getattr(torch, narrow)).float().numpy()
    made = layer(channels=12, running_mean=mean, running_var=cast)
    assert same_bits(made) is None  # two tensors of float32 that differ
    kept = cast.astype(np.float16) if narrow == "float16" else cast
    made = layer(channels=12, running_mean=mean, running_var=kept)
    made = type(made)(made.state, made.shapes, {**made.dtypes, "running_var": narrow})
    assert same_bits(made) == ("running_var", "running_mean")


# The file's other rules say nothing about what was never written.


@pytest.mark.parametrize("counter", [0, 3, 40])
@pytest.mark.parametrize(
    "vectors",
    [
        ZEROS,
        {"running_var": f4(1e-38, 1e30, 0.5, 0.7)},
        {"running_mean": f4(1, -2, 3, 4), "running_var": f4(1, -2, 3, 4)},
    ],
    ids=["zeros", "memory", "twice"],
)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_counter_is_not_judged_by_such_statistics(counter, vectors, momentum):
    made = layer("a", counter=counter, momentum=momentum, **vectors)
    file = Checkpoint([summary(made), summary(layer("b", counter=counter, momentum=momentum))])
    blamed = {f.code for f in file_findings(file) if f.subject == "a"}
    assert blamed == set()


def test_statistics_that_were_never_written_are_no_ones_example():
    """BN101 takes other layers for proof that the file has statistics."""
    fresh = {"running_mean": np.zeros(4, np.float32), "running_var": np.ones(4, np.float32)}
    initial = summary(layer("a", counter=0, **fresh))
    for other, code in ((layer("b", counter=0, **ZEROS), "BN102"), (layer("b"), "BN101")):
        found = file_findings(Checkpoint([initial, summary(other)]))
        assert [f.code for f in found if f.subject == "a"] == [code]


def test_no_check_stumbles_over_what_is_missing():
    """Every combination of vectors that are not there, not finite, of no channel, and of eps."""
    kinds = (None, f4(0, 0), f4(1, 0.5), f4(np.nan, 1), f4(np.inf, -np.inf), f4(-1e30, 1e-40))
    counters = itertools.cycle((None, 0, 7, 2**63 - 1, math.nan, -math.inf, 200))
    for mean, var, weight in itertools.product(kinds, repeat=3):
        vectors = {"running_mean": mean, "running_var": var, "weight": weight, "bias": None}
        for eps in (1e-5, 0.0):
            made = layer_of(next(counters), vectors)
            object.__setattr__(made, "eps", eps)
            for finding in layer_findings(made):
                assert "nan" not in finding.text.split()
            summary(made)
    empty = np.zeros(0, np.float32)
    names = ("running_mean", "running_var", "weight", "bias")
    assert codes(layer(channels=0, **dict.fromkeys(names, empty))) == set()
