"""The arithmetic behind the rules for checkpoints, against fractions, PyTorch and hypothesis."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.commands.inspect_checkpoint.layer_settings import matches
from bncli.model import BatchNormState
from bncli.rulebook.channels import outlier
from bncli.rulebook.checkpoint import file_findings, layer_findings
from bncli.rulebook.copies import twins
from bncli.rulebook.counters import check_multiples, counter_groups, is_count
from bncli.rulebook.estimation import named_batch_norm
from bncli.rulebook.layers import Checkpoint, Layer, summary
from bncli.rulebook.momentum import counter_too_small, initial_weight
from bncli.rulebook.order import among, distinct, median
from bncli.rulebook.pairs import Pair
from bncli.rulebook.precision import HALF_STATISTICS


def layer(name="bn", channels=4, *, momentum=0.1, counter=100, dtype="float32", **vectors):
    """A layer as it comes from a file."""
    rng = np.random.default_rng(sum(map(ord, name)))
    values = {
        "running_mean": rng.normal(size=channels).astype(np.float32),
        "running_var": rng.uniform(0.5, 2, channels).astype(np.float32),
        "weight": rng.normal(size=channels).astype(np.float32),
        "bias": rng.normal(size=channels).astype(np.float32),
    } | vectors
    state = BatchNormState(name, **values, num_batches_tracked=counter, dtype=dtype)
    shapes = {leaf: value.shape for leaf, value in values.items()} | {"num_batches_tracked": ()}
    return Layer(state, shapes, dict.fromkeys(values, dtype), momentum=momentum)


momenta = st.floats(0, 1, allow_subnormal=False)


@given(momenta, st.integers(1, 200))
def test_initial_weight_is_what_is_left_of_1(momentum, batches):
    exact = (1 - Fraction(momentum)) ** batches
    assert initial_weight(momentum, batches) == pytest.approx(float(exact), rel=1e-9, abs=1e-300)


def test_initial_weight_of_no_average():
    assert initial_weight(None, 5) == 0
    assert initial_weight(1.5, 5) == 0
    assert initial_weight(0.1, 0) == 0
    assert initial_weight(0.0, 7) == 1


@given(
    st.floats(1e-3, 0.999),
    st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=60),
    st.sampled_from(["float32", "float16"]),
)
def test_a_counter_that_is_right_is_never_called_too_small(momentum, batches, dtype):
    """Whatever the batches' variances are, in the rounding of the dtype that keeps them."""
    var = np.ones(1, dtype)
    with np.errstate(over="ignore"):
        for batch in batches:
            var = ((1 - momentum) * var.astype("f8") + momentum * batch).astype(dtype)
    made = layer(
        channels=1,
        momentum=momentum,
        counter=len(batches),
        dtype=dtype,
        running_var=var,
        running_mean=np.ones(1, dtype),
    )
    assert not counter_too_small(summary(made))


@pytest.mark.parametrize("momentum", [0.5, 0.3, 0.1, 0.03])
def test_the_decay_of_a_dead_channel_never_proves_the_counter_wrong(momentum):
    """PyTorch's own float32, down to the floor at which it stops or underflows."""
    torch_momentum = torch.tensor(momentum).item()
    mean, var = torch.full((2,), 0.5), torch.ones(2)
    x = torch.zeros(4, 2)
    for step in range(1, 1200):
        torch.nn.functional.batch_norm(x, mean, var, training=True, momentum=torch_momentum)
        if step % 40 == 0:
            made = layer(
                channels=2,
                momentum=momentum,
                counter=step,
                running_var=var.numpy().copy(),
                running_mean=np.ones(2, np.float32),
            )
            assert not counter_too_small(summary(made)), step


@pytest.mark.parametrize("steps", [120, 170, 300])
def test_a_variance_that_a_cast_to_float16_lost_proves_nothing(steps):
    """0.9^170 is below half of float16's least number: a dead channel is 0 after the cast."""
    var = np.float32([0.9**steps, 1.0, 1.0, 1.0]).astype(np.float16)
    made = layer(counter=steps, running_var=var, dtype="float16")
    assert not counter_too_small(summary(made))


def test_bfloat16_statistics_stop_where_the_rule_says():
    assert "stops half-way from 0 to 1, and a running_var never leaves 1 for 2" in (
        HALF_STATISTICS.certainty
    )
    module = torch.nn.BatchNorm1d(1, momentum=0.001).bfloat16()
    x = torch.tensor([[0.0], [2.0]], dtype=torch.bfloat16)  # mean 1, unbiased variance 2
    for _ in range(2000):
        module(x)
    assert (module.running_mean.item(), module.running_var.item()) == (0.5, 1.0)


def test_a_variance_below_the_bound_proves_it():
    bound = 0.9**20
    low = np.float32([1.0, bound * 0.99, 1.0, 1.0])
    assert counter_too_small(summary(layer(counter=20, running_var=low)))
    high = np.float32([1.0, bound * 1.001, 1.0, 1.0])
    assert not counter_too_small(summary(layer(counter=20, running_var=high)))
    assert counter_too_small(summary(layer(counter=0)))
    assert not counter_too_small(
        summary(
            layer(
                counter=0, running_mean=np.zeros(4, np.float32), running_var=np.ones(4, np.float32)
            )
        )
    )


@given(st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1))
def test_counter_groups_count_every_layer(counters):
    said = counter_groups(counters)
    numbers = [int(part.split()[0]) for part in said.split(", ") if "values from" not in part]
    if "values from" not in said:
        assert sum(numbers) == len(counters)


@pytest.mark.parametrize(
    ("small", "large", "blamed"),
    [
        (10, 20, True),
        (10, 40, True),
        (9, 18, False),  # a few steps
        (10, 50, False),  # one count in five is a multiple by accident
        (100, 800, True),
        (100, 900, False),  # phases of training share an epoch's batches
        (100, 201, False),
    ],
)
def test_which_multiples_of_a_counter_are_remarked(small, large, blamed):
    layers = [summary(layer(f"bn{n}", counter=n)) for n in (small, large)]
    assert [f.subject for f in check_multiples(Checkpoint(layers))] == [f"bn{large}"] * blamed


@pytest.mark.parametrize(
    ("scales", "channel"),
    [
        ([1, 1, 1, 1, 30], 4),
        ([1, 1, 1, 1, 19], None),  # not 20 times the median
        ([1, 1, 1, 30, 30], None),  # not one that drowns the others
        ([1, 1, np.nan, 1, 1, 30], 5),
        ([1, 1, 30], None),
    ],
)
def test_which_scale_stands_out(scales, channel):
    assert outlier(np.array(scales, float)) == channel


def test_a_counter_that_is_no_number_of_batches_is_short():
    assert counter_groups([1e300, 1e300]) == "2 layers at 1e+300"


def test_counter_groups():
    assert counter_groups([7, 7, 7, 3]) == "3 layers at 7, 1 at 3"
    assert counter_groups([7]) == "1 layer at 7"
    assert counter_groups([None, None]) == "2 without a count"
    assert counter_groups([7.0, None]) == "1 layer at 7, 1 without a count"
    assert counter_groups([0.5]) == "1 layer at 0.5"
    assert counter_groups(list(range(9))) == "9 values from 0 to 8"
    assert counter_groups([]) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, True), (7.0, True), (-1, False), (0.5, False), (np.nan, False), (np.inf, False),
     (None, False)],
)  # fmt: skip
def test_is_count(value, expected):
    assert is_count(value) is expected


@pytest.mark.parametrize(
    ("live", "copy"),
    [
        ("model.layer1.bn", "ema.layer1.bn"),
        ("model.layer1.bn", "model_ema.module.layer1.bn"),
        ("state_dict.layer1.bn", "state_dict_ema.layer1.bn"),
        ("module.layer1.bn", "ema_model.module.layer1.bn"),
        ("student.backbone.bn", "teacher.backbone.bn"),
        ("model.model.0.bn", "ema.model.0.bn"),
        ("encoder_q.bn", "encoder_k.bn"),
        ("a/model/bn", "a/ema/bn"),
        ("net.bn", "swa.module.bn"),
        ("_orig_mod.module.layer1.bn", "ema._orig_mod.module.layer1.bn"),
    ],
)
def test_an_averaged_copy_is_paired_with_the_live_model(live, copy):
    names = [live, copy, live.replace("bn", "other.bn")]
    layers = [summary(layer(name)) for name in names]
    assert twins(layers) == {copy: live}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model.layer1.bn", "model.layer2.bn"),
        ("G.bn", "D.bn"),
        ("schema.bn", "net.bn"),  # no component that says ema
        ("cinema.bn", "net.bn"),
        ("net.bn", "net.ema_norm"),  # the layer's own name is not a copy's
        ("ema.layer1.bn", "ema.layer2.bn"),  # no live model
    ],
)
def test_other_networks_are_no_copies(one, other):
    assert twins([summary(layer(one)), summary(layer(other))]) == {}


def test_a_copy_has_the_same_number_of_channels():
    assert twins([summary(layer("net.bn", 4)), summary(layer("ema.bn", 5))]) == {}


def test_one_layer_below_ema_in_a_network_of_many_is_no_copy():
    names = ["stem.bn", "layer1.bn", "layer2.bn", "layer2.ema.bn", "layer3.ema.bn"]
    assert twins([summary(layer(name)) for name in names]) == {}
    whole = [f"{root}.{number}" for root in ("net", "ema") for number in range(3)]
    pairs = {f"ema.{number}": f"net.{number}" for number in range(3)}
    assert twins([summary(layer(name)) for name in whole]) == pairs


def test_the_layers_of_a_copy_beside_its_blocks_are_paired_too():
    ends = ["bn1", *(f"layer{number}.{at}.bn1" for number in (1, 2) for at in (0, 1))]
    whole = [f"{root}.{end}" for root in ("student", "teacher") for end in ends]
    pairs = {f"teacher.{end}": f"student.{end}" for end in ends}
    assert twins([summary(layer(name)) for name in whole]) == pairs


def test_a_copy_is_known_by_its_n_averaged():
    layers = [summary(layer("best.module.bn")), summary(layer("live.bn"))]
    assert twins(layers) == {}
    assert twins(layers, ["best"]) == {"best.module.bn": "live.bn"}


@pytest.mark.parametrize(
    ("name", "glob", "expected"),
    [
        ("a.b.bn", "bn", True),
        ("a.b.bn", "b.*", True),
        ("a.b.bn", "a.*", True),
        ("a/b/bn", "b/*", True),
        ("a.b.bn", "n", False),
        ("a.b.bn", "*n", True),
        ("a.b.bn", "b", False),
        ("layer10.bn", "layer1.*", False),
        ("layer1.bn", "layer[12].*", True),
    ],
)
def test_globs_match_any_end_of_a_name(name, glob, expected):
    assert matches(name, glob) is expected


def test_names_that_say_batchnorm():
    assert named_batch_norm("x.bn1")
    assert named_batch_norm("batchnorm")
    assert not named_batch_norm("bn1.proj")
    assert not named_batch_norm("x.bnb")


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_median_is_numpys(values):
    assert median(np.array(values)) == pytest.approx(np.median(values), rel=1e-12, abs=1e-300)


EXTREMES = [
    0.0,
    -0.0,
    1.0,
    -1e-5,
    1e-45,
    1e-5,
    65504.0,
    65505.0,
    3e38,
    -1.0,
    np.nan,
    np.inf,
    -np.inf,
]
vectors = st.one_of(
    st.none(),
    st.tuples(
        st.lists(st.one_of(st.sampled_from(EXTREMES), st.floats(width=32)), max_size=12),
        st.sampled_from(["f2", "f4", "f8"]),
    ),
)
counters = st.one_of(
    st.none(), st.integers(-3, 2**62), st.floats(), st.sampled_from([0, 1, 100, 200])
)


@given(
    st.lists(st.tuples(vectors, vectors, vectors, vectors, counters), min_size=1, max_size=4),
    st.sampled_from([0.0, 1e-5, 1e-3, 1e3]),
    st.one_of(st.none(), st.sampled_from([-0.5, 0.0, 0.1, 1.0, 2.0, 1e-9])),
    st.booleans(),
    st.tuples(*[st.one_of(st.none(), st.floats(0, 1e308))] * 3),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_whatever_a_file_holds_it_is_judged(layers, eps, momentum, assumed, numbers, shared):
    """Any values, lengths and dtypes: findings with whole sentences, and never an exception."""
    leaves = ("running_mean", "running_var", "weight", "bias")
    dtypes = {"f2": "float16", "f4": "float32", "f8": "float64"}
    findings, summaries = [], []
    for number, (*tensors, counter) in enumerate(layers):
        with np.errstate(over="ignore"):
            arrays = {
                leaf: np.array(tensor[0], tensor[1])
                for leaf, tensor in zip(leaves, tensors, strict=True)
                if tensor is not None
            }
        shapes = {leaf: array.shape for leaf, array in arrays.items()}
        if counter is not None:
            shapes["num_batches_tracked"] = ()
        name = ("net.bn", "ema.bn", "net.bn2", "")[number]
        state = BatchNormState(name, **arrays, num_batches_tracked=counter)
        kinds = {leaf: dtypes[array.dtype.str[1:]] for leaf, array in arrays.items()}
        made = Layer(state, shapes, kinds, eps=eps, momentum=momentum, momentum_assumed=assumed)
        findings += layer_findings(made)
        summaries.append(summary(made))
    pairs = {copy: Pair(("ema", "net"), *numbers) for copy in twins(summaries)}
    file = Checkpoint(
        summaries,
        twins=twins(summaries),
        pairs=pairs,
        followers=list(pairs) * shared,
        shared={"net.bn2": "net.bn"} if shared and len(layers) > 2 else {},
        averaged={} if shared else {"ema": 3.0},
    )
    for finding in findings + file_findings(file):
        assert finding.message.endswith(".")
        assert finding.evidence
        assert "\n" not in finding.message


@given(st.lists(st.sampled_from([0.0, -1.0, 1e-45, 3.5, np.inf, -np.inf, 2.0]), max_size=30))
def test_what_an_order_tells_is_what_numpy_tells(values):
    array = np.array(values, np.float32)
    assert np.array_equal(distinct(array), np.unique(array))
    if values:
        some = np.unique(array[::2])
        assert np.array_equal(among(array, some), np.isin(array, some))
    assert not among(array, array[:0]).any()
