"""What a capture takes in, beside what the test's own hooks saw."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
import pytest
import torch
from torch import nn

from bncli.errors import ModelError
from bncli.live.capture_run import CaptureRun
from bncli.live.renewal import Renewal
from bncli.live.session import Session
from bncli.loaders.statistics.columns import COUNTS, NUMBERS
from bncli.loaders.statistics.merging import merged
from bncli.model.capture import Propagation
from bncli.rulebook.live.causes import diagnosis
from tests.live.small import NORMS, Net, data, filled, images, made

TRAINING, EVAL = Propagation.TRAINING, Propagation.EVAL
BATCHES = images(batches=3)


def captured(net, tensors, **flags):
    session = Session(net, data(tensors))
    with session.open():
        return session.capture(**flags)


def seen_by_hand(net, tensors, *, training):
    """The inputs of every layer, by name, in a model of which only these layers are in training."""
    seen = {}
    layers = {name: each for name, each in net.named_modules() if isinstance(each, NORMS)}
    kept = {key: value.clone() for key, value in net.state_dict().items()}
    handles = [
        layer.register_forward_pre_hook(
            lambda _, args, name=name: seen.setdefault(name, []).append(args[0].detach().clone())
        )
        for name, layer in layers.items()
    ]
    net.eval()
    for layer in layers.values():
        layer.train(training)
    with torch.no_grad():
        for x in tensors:
            net(x)
            net.load_state_dict(kept)
    net.eval()
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_sums_are_those_of_exact_arithmetic(dtype, training):
    tensors = [x.to(dtype) for x in images(batches=3, samples=3, size=4)]
    net = made().to(dtype)
    seen = seen_by_hand(net, tensors, training=training)
    capture = captured(net, tensors, renew=False)
    assert [layer.name for layer in capture.norms] == ["bn1", "bn2", "bn3"]
    for layer in capture.norms:
        sums = layer.seen[TRAINING if training else EVAL]
        batches = [
            x.double().flatten(2) if x.ndim > 2 else x.double()[..., None] for x in seen[layer.name]
        ]
        for channel in range(layer.num_features):
            rows = [x[:, channel].tolist() for x in batches]
            values = [value for row in rows for sample in row for value in sample]
            mean = math.fsum(values) / len(values)
            square = math.fsum((value - mean) ** 2 for value in values)
            means = [math.fsum(chain.from_iterable(row)) / sum(map(len, row)) for row in rows]
            between = math.fsum(
                sum(map(len, row)) * (each - mean) ** 2
                for row, each in zip(rows, means, strict=True)
            )
            of_samples = math.fsum(
                (math.fsum(sample) / len(sample) - each) ** 2
                for row, each in zip(rows, means, strict=True)
                for sample in row
            )
            size = square + len(values) * 1e-30
            assert sums.values == len(values)
            assert sums.mean[channel] == pytest.approx(mean, rel=1e-12, abs=1e-12 * size**0.5)
            total = sums.within[channel] + sums.between[channel]
            assert total == pytest.approx(square, rel=1e-12)
            assert sums.between[channel] == pytest.approx(between, rel=1e-9, abs=1e-12 * size)
            assert sums.sample_squares[channel] == pytest.approx(of_samples, rel=1e-9, abs=1e-12)
            assert (sums.min[channel], sums.max[channel]) == (min(values), max(values))
            assert sums.at_zero[channel] == values.count(0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_training_pass_alone_sees_the_same_moments(dtype):
    tensors = [x.to(dtype) for x in images(batches=3)]
    net = made().to(dtype)
    whole = captured(net, tensors, renew=False)
    session = Session(net, data(tensors))
    with session.open():
        run = CaptureRun(session, per_batch=True)
        run.training()
        light = run.capture(Renewal())
    assert [layer.name for layer in light.norms] == [layer.name for layer in whole.norms]
    for one, other in zip(light.norms, whole.norms, strict=True):
        assert [*one.seen] == [TRAINING]
        got, wanted = one.seen[TRAINING], other.seen[TRAINING]
        for name in ("values", "samples", "batches"):
            assert getattr(got, name) == getattr(wanted, name)
        for name in ("mean", "var", "batch_var", "mean_of_batches"):
            ours, theirs = getattr(got, name), getattr(wanted, name)
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12 * wanted.var.max())
        np.testing.assert_allclose(got.sample_squares, wanted.sample_squares, rtol=1e-9)
        assert np.isnan(got.min).all()
        assert light.per_batch[one.name, TRAINING]["count"].sum() == got.values


def test_the_model_s_input_is_layer_0():
    tensors = images()
    tensors[0][:, 1] = 0
    first = captured(made(tensors=tensors), tensors, renew=False).input
    assert (first.name, first.order, first.num_features) == ("input", 0, 3)
    whole = torch.cat(tensors).double()
    np.testing.assert_allclose(first.seen[EVAL].mean, whole.mean((0, 2, 3)), rtol=1e-12)
    assert first.seen[EVAL].at_zero.tolist() == (whole == 0).sum((0, 2, 3)).tolist()


def test_batches_of_different_sizes_are_weighted_by_their_values():
    tensors = [x[: 3 + i] for i, x in enumerate(images(samples=8))]
    capture = captured(made(), tensors, renew=False)
    sums = capture.norms[0].seen[EVAL]
    assert (sums.batches, sums.samples) == (4, 3 + 4 + 5 + 6)
    whole = torch.cat([made().conv1(x) for x in tensors]).double()
    np.testing.assert_allclose(sums.mean, whole.mean((0, 2, 3)).detach(), rtol=1e-5, atol=1e-7)


def test_a_layer_that_is_called_twice_is_counted_so():
    class Twice(Net):
        def forward(self, x):
            x = self.bn1(self.bn1(self.conv1(x)).relu())
            return self.out(self.bn3(self.linear(self.bn2(self.conv2(x)).mean((2, 3)))))

    layers = {layer.name: layer for layer in captured(Twice(), images(), renew=False).norms}
    assert layers["bn1"].calls == 2
    assert layers["bn1"].seen[TRAINING].batches == 8
    assert layers["bn2"].calls == 1


def test_layers_that_no_batch_reaches_are_named():
    net = made()
    net.spare = nn.BatchNorm1d(4)
    capture = captured(net, images(), renew=False)
    assert capture.uncalled == ("spare",)
    assert "spare" not in [layer.name for layer in capture.layers]


class Dropping(Net):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return self.out(self.bn3(self.linear(self.drop(x.mean((2, 3))))))


def test_dropout_is_on_in_one_propagation_and_alike_each_time():
    torch.manual_seed(0)
    net = Dropping()
    first, second = (captured(net, images(), renew=False) for _ in range(2))
    assert first.dropout == ("drop",)
    last = first.norms[-1].seen
    assert not np.allclose(last[Propagation.AS_TRAINED].var, last[TRAINING].var)
    np.testing.assert_array_equal(
        first.norms[1].seen[Propagation.AS_TRAINED].var, first.norms[1].seen[TRAINING].var
    )
    again = second.norms[-1].seen[Propagation.AS_TRAINED]
    np.testing.assert_array_equal(last[Propagation.AS_TRAINED].within, again.within)
    assert Propagation.AS_TRAINED not in captured(made(), images(), renew=False).norms[0].seen


def test_nan_in_the_data_is_counted_where_it_comes():
    tensors = images()
    tensors[2][0, 1, 2, 2] = math.nan
    capture = captured(made(), tensors, renew=False)
    assert capture.input.seen[EVAL].nan.tolist() == [0, 1, 0]
    assert capture.norms[0].seen[EVAL].nan.min() > 0


def test_one_value_a_channel_runs_evaluation_alone():
    tensors = [x[:1] for x in images()]
    capture = captured(made(), tensors)
    assert "Expected more than 1 value per channel" in capture.refused_training
    assert set(capture.norms[0].seen) == {EVAL}
    assert capture.gap(EVAL) is None
    assert capture.rounds is None


def test_the_kernel_gives_the_mean_behind_the_convolution():
    net = made()
    capture = captured(net, images(), renew=False)
    kernel = capture.norms[0].kernel
    mean = kernel.sums @ capture.input.seen[EVAL].mean
    np.testing.assert_allclose(mean, capture.norms[0].seen[EVAL].mean, atol=0.05)
    assert capture.norms[1].kernel is None


# ---------------------------------------------- layers and models of every kind


class Calls(nn.Module):
    """A model that is a function of its input and some layers."""

    def __init__(self, run, *modules):
        super().__init__()
        self.run = run
        self.m = nn.ModuleList(modules)

    def forward(self, x):
        return self.run(self.m, x)


KINDS = {
    "1d": (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), (6, 3)),
    "1d of sequences": (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (6, 3, 9)),
    "3d": (nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4)), (6, 3, 4, 4, 4)),
    "sync": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4)), (6, 3, 8, 8)),
    "no affine": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False, momentum=None)),
        (6, 3, 8, 8),
    ),
    "untracked": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        (6, 3, 8, 8),
    ),
    "keyword": (
        Calls(lambda m, x: m[1](input=m[0](x)), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        (6, 3, 8, 8),
    ),
    "instances": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True)),
        (6, 3, 8, 8),
    ),
    "weight norm": (
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)),
        (6, 3, 8, 8),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_class_of_layer_is_captured(kind):
    model, shape = KINDS[kind]
    torch.manual_seed(0)
    batches = [torch.randn(shape) for _ in range(3)]
    capture = captured(model, batches, renew=True)
    (layer,) = capture.norms
    assert layer.num_features == 4
    name = layer.name
    (evaluated, trained) = (layer.seen[EVAL], layer.seen[TRAINING])
    with torch.no_grad():
        every = torch.cat([(model.m if "m" in name else model)[0](x) for x in batches]).double()
    np.testing.assert_allclose(evaluated.mean, every.transpose(0, 1).flatten(1).mean(1), rtol=1e-9)
    np.testing.assert_allclose(trained.mean, evaluated.mean, rtol=1e-12)  # nothing is in front
    assert evaluated.batches == (18 if layer.per_sample else 3)
    assert capture.settled
    assert capture.gap_floor < 0.7
    assert layer.kernel is not None
    np.testing.assert_allclose(
        layer.kernel.sums @ capture.input.seen[EVAL].mean + layer.kernel.bias,
        evaluated.mean,
        atol=0.1,  # borders see the input's margins less
    )


def test_kernels_are_those_of_plain_convolutions_that_read_the_input():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return nn.functional.conv2d(x, weight, self.bias)

    norms = [nn.BatchNorm2d(4) for _ in range(3)]
    model = Calls(
        lambda m, x: m[1](m[0](x)).mean() + m[3](m[2](x + 1)).mean() + m[5](m[4](x)),
        nn.Conv2d(3, 4, 3),
        norms[0],
        nn.Conv2d(3, 4, 3),  # does not read the input itself
        norms[1],
        Standardised(3, 4, 3),  # whose weight is not the one it uses
        norms[2],
    )
    capture = captured(model, BATCHES)
    assert [layer.kernel is not None for layer in capture.norms] == [True, False, False]


def test_layers_that_see_nothing_are_not_called():
    model = Calls(lambda m, x: (m[0](x), m[1](x[:0]).sum()), nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    assert captured(model, BATCHES, renew=True).uncalled == ("m.1",)


def test_channels_last_are_read_by_the_layer_that_moves_them():
    class Last(nn.BatchNorm1d):
        def forward(self, x):
            return super().forward(x.transpose(1, 2)).transpose(1, 2)

    batches = [torch.randn(6, 5, 7) for _ in range(3)]
    capture = captured(nn.Sequential(Last(7)), batches, renew=True)
    (layer,) = capture.norms
    np.testing.assert_allclose(
        layer.seen[EVAL].mean, torch.cat(batches).double().mean((0, 1)), rtol=1e-12
    )
    assert capture.settled


def test_a_compiled_model_is_watched():
    inner = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
    model = nn.Sequential(torch.compile(inner, backend="eager"), nn.BatchNorm2d(3)).eval()
    model(BATCHES[0])
    names = [layer.name for layer in captured(model, BATCHES).norms]
    assert names == ["0._orig_mod.1", "1"]
    whole = torch.compile(nn.Sequential(nn.BatchNorm2d(3)), backend="eager")
    assert [layer.name for layer in captured(whole, BATCHES).norms] == ["0"]


def left_in_training(model):
    return [layer.name for layer in captured(model, BATCHES).norms if layer.in_training]


def test_layers_that_evaluation_leaves_in_training_are_told_whoever_left_them():
    class Stubborn(nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train()

    assert left_in_training(nn.Sequential(nn.BatchNorm2d(3), Stubborn(3))) == ["1"]

    def forward(m, x):
        m[0].train()
        return m[1](m[0](x))

    assert left_in_training(Calls(forward, nn.BatchNorm2d(3), nn.BatchNorm2d(3))) == ["m.0"]
    by_hand = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)).eval()
    by_hand[0].train()
    assert left_in_training(by_hand) == ["0"]
    assert left_in_training(made()) == []
    assert left_in_training(made().train()) == []


def test_what_else_is_in_training_is_told():
    model = nn.Sequential(nn.Dropout(0.1), nn.BatchNorm2d(3)).eval()
    model[0].train()
    capture = captured(model, BATCHES)
    assert capture.still_training == ("0",)
    assert capture.dropout == ("0",)


# ---------------------------------------------- what training refuses


def vectors(*sizes):
    return [torch.randn(n, 3) for n in sizes]


def test_instances_of_one_value_are_refused_too():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.InstanceNorm2d(3, track_running_stats=True))
    capture = captured(model, BATCHES)
    assert "Expected more than 1 spatial element when training" in capture.refused_training
    assert [*capture.norms[0].seen] == [EVAL]


def test_a_last_batch_of_one_sample_is_left_out():
    torch.manual_seed(0)
    batches = vectors(8, 1, 8, 1)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4), nn.BatchNorm1d(4))
    capture = captured(model, batches, renew=True)
    assert capture.refused_training == ""
    assert capture.left_out == ("1", "3")
    for layer in capture.layers:
        assert {(sums.samples, sums.batches) for sums in layer.seen.values()} == {(16, 2)}
    without = captured(model, [batches[0], batches[2]], renew=True)
    assert capture.gap(EVAL) == without.gap(EVAL)
    assert capture.gap_floor == without.gap_floor


def test_single_samples_that_training_takes_are_batches_like_any_other():
    capture = captured(nn.Sequential(nn.BatchNorm2d(3)), [x[:1] for x in BATCHES])
    assert capture.left_out == ()
    assert capture.norms[0].seen[TRAINING].batches == 3


def test_other_errors_of_a_single_sample_are_the_models():
    def refuse(m, x):
        if len(x) == 1:
            raise ValueError("too few")
        return m[0](x)

    with pytest.raises(ModelError, match="too few"):
        captured(Calls(refuse, nn.BatchNorm1d(3)), vectors(8, 1))


# ---------------------------------------------- what is not finite, and what is written over


def test_the_first_layer_behind_a_nan_is_known():
    model = Calls(lambda m, x: m[2]((m[1](m[0](x))).log()), *(nn.BatchNorm2d(3) for _ in range(3)))
    capture = captured(model, BATCHES, renew=True)
    spoilt = [bool(layer.seen[EVAL].nan.sum()) for layer in capture.norms]
    assert spoilt == [False, False, True]


def test_an_output_that_is_the_models_own_buffer_is_compared_all_the_same():
    class Reusing(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm2d(3)
            self.register_buffer("room", torch.zeros(8, 3, 8, 8))

        def forward(self, x):
            return self.room.copy_(self.bn(x))

    plain = captured(nn.Sequential(nn.BatchNorm2d(3)), BATCHES, renew=True)
    reusing = captured(Reusing(), BATCHES, renew=True)
    assert reusing.gap(EVAL) == plain.gap(EVAL) > 0
    assert reusing.gap_floor == plain.gap_floor


# ---------------------------------------------------------------------------- splits


@pytest.mark.parametrize("seed", range(10))
def test_any_split_of_the_batches_comes_to_the_whole(seed):
    """Batches of any size and scale, in parts of any size and order, in both propagations."""
    rng = np.random.default_rng(seed)
    tensors = [
        x[: rng.integers(2, 9)] * 10.0 ** rng.uniform(-3, 3) + rng.choice([0.0, 100.0])
        for x in images(batches=int(rng.integers(2, 9)), seed=seed, size=4)
    ]
    owner = rng.integers(0, rng.integers(1, len(tensors) + 1), len(tensors))
    net = made()
    parts = [
        captured(net, [x for x, own in zip(tensors, owner, strict=True) if own == k], renew=False)
        for k in rng.permutation(np.unique(owner))
    ]
    whole, found = captured(net, tensors, renew=False), merged(parts)
    for mine, theirs in zip(found.layers, whole.layers, strict=True):
        assert mine.name == theirs.name
        for propagation in (TRAINING, EVAL):
            got, sums = mine.seen[propagation], theirs.seen[propagation]
            for key in NUMBERS + COUNTS + ("min", "max"):
                np.testing.assert_array_equal(getattr(got, key), getattr(sums, key), key)
            spread = np.sqrt(sums.var)
            assert (np.abs(got.mean - sums.mean) <= 1e-12 * (spread + np.abs(sums.mean))).all()
            np.testing.assert_allclose(got.var, sums.var, rtol=1e-12, atol=1e-26)
    for mine, theirs in zip(found.outputs, whole.outputs, strict=True):
        np.testing.assert_allclose(mine.squares, theirs.squares, rtol=1e-12)
        assert mine.apart[EVAL] == pytest.approx(theirs.apart[EVAL], rel=1e-12)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_parts_of_few_batches_blame_nothing_healthy(size):
    """New statistics of few batches fit these too well, so that the floor of parts is too low."""
    tensors = images(batches=8, seed=5)
    net = filled(made(), tensors)
    parts = [captured(net, tensors[i : i + size]) for i in range(0, len(tensors), size)]
    found, whole = merged(parts), captured(net, tensors)
    assert (found.renewals, whole.renewals) == (8 // size, 1)
    assert found.gap_floor < whole.gap_floor
    assert [each.code for each in diagnosis(found).findings] == [
        each.code for each in diagnosis(whole).findings
    ]
