"""What a capture takes in, beside what the test's own hooks saw."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
import pytest
import torch
from torch import nn

from bncli.live.session import Session
from bncli.model.capture import Propagation
from tests.live.small import NORMS, Net, data, images, made

TRAINING, EVAL = Propagation.TRAINING, Propagation.EVAL


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
