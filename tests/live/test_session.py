"""A session: its captures and what it measures are those of plain PyTorch, twice the same."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from bncli.errors import ModelError
from bncli.live.batch import Statistics
from bncli.live.data_source import open_data
from bncli.live.session import Session
from bncli.model.capture import Propagation
from tests.live.small import (
    NORMS,
    Net,
    by_hand,
    data,
    gap_by_hand,
    images,
    made,
    renewed_by_hand,
    snapshot,
)

BATCHES = images()

LOADERS = """
    import torch
    from torch.utils.data import DataLoader
    from tests.live.small import images

    X = torch.cat(images())
    shuffled = DataLoader(X, batch_size=8, shuffle=True)
    augmented = DataLoader(X, batch_size=8, shuffle=True,
                           collate_fn=lambda xs: torch.stack(xs) + 0.1 * torch.randn(8, 3, 8, 8))
"""


def off():
    """A net whose second layer is wrong."""
    net = made()
    net.bn2.running_var.mul_(9)
    return net


def captured(net, batches=None, frozen=(), **how):
    """The session and its capture."""
    session = Session(net, data(BATCHES) if batches is None else batches, frozen)
    with session.open():
        return session, session.capture(**how)


def bits(value):
    """A capture as something that is equal only bit for bit."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: bits(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): bits(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [bits(each) for each in value]
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    return value.hex() if isinstance(value, float) else value


def statistics(seed=0):
    """Statistics for two of the layers, of float32 numbers."""
    rng = np.random.default_rng(seed)
    return {
        name: Statistics(
            rng.normal(size=n).astype(np.float32).astype(float),
            rng.uniform(0.5, 2, n).astype(np.float32).astype(float),
        )
        for name, n in (("bn1", 8), ("bn3", 5))
    }


def with_statistics(net, given):
    """A copy of the net that holds them."""
    net = copy.deepcopy(net)
    for name, (mean, var) in given.items():
        net.get_submodule(name).running_mean.copy_(torch.from_numpy(mean))
        net.get_submodule(name).running_var.copy_(torch.from_numpy(var))
    return net


# ---------------------------------------------- as before afterwards


class Fails(Net):
    """A model that counts in a buffer and fails at its third pass, behind its first layers."""

    def __init__(self, error):
        super().__init__()
        self.error, self.passes = error, 0
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls += 1
        self.passes += 1
        result = super().forward(x)
        if self.error is not None and self.passes > 2:
            raise self.error
        return result


@pytest.mark.parametrize(
    ("error", "raised"),
    [(None, None), (ValueError("no"), ModelError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["returns", "raises", "interrupted"],
)
def test_a_model_is_as_before(error, raised):
    net = Fails(error).train()
    net.bn2.eval()
    before = snapshot(net)
    session = Session(net, data(BATCHES))
    assert snapshot(net) == before
    if raised is None:
        with session.open():
            session.capture(per_batch=True)
            session.measure(statistics(), lambda *_: float(torch.rand(())), lambda x: x + 1)
    else:
        with pytest.raises(raised), session.open():
            session.capture()
    assert snapshot(net) == before
    assert not any(module._forward_pre_hooks for module in net.modules())
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()], ids=repr)
def test_a_metric_that_fails_leaves_nothing(error):
    net = made()
    before = snapshot(net)
    session = Session(net, data(BATCHES))

    def metric(*_):
        raise error

    wanted = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ModelError
    with pytest.raises(wanted), session.open():
        session.measure({}, metric)
    assert snapshot(net) == before


# ---------------------------------------------- numbers


def test_a_capture_is_that_of_plain_torch():
    net = off()
    session, capture = captured(net)
    assert [layer.name for layer in capture.layers] == ["input", "bn1", "bn2", "bn3"]
    assert capture.gap(Propagation.EVAL) == pytest.approx(gap_by_hand(net, BATCHES), rel=1e-6)
    renewed = renewed_by_hand(net, BATCHES)
    assert capture.gap_floor == pytest.approx(gap_by_hand(renewed, BATCHES), rel=1e-3)
    assert set(session.renewed) == {"bn1", "bn2", "bn3"}
    for name, (mean, var) in session.renewed.items():
        layer = renewed.get_submodule(name)
        np.testing.assert_allclose(mean, layer.running_mean.numpy(), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(var, layer.running_var.numpy(), rtol=1e-3)


@pytest.mark.parametrize("propagation", [Propagation.TRAINING, Propagation.EVAL])
def test_what_each_layer_saw(propagation):
    net = off()
    _, capture = captured(net)
    copied = copy.deepcopy(net).eval()
    seen = {}
    for name, module in copied.named_modules():
        if isinstance(module, NORMS):
            module.training = propagation is Propagation.TRAINING
            module.register_forward_pre_hook(
                lambda _, args, name=name: seen.setdefault(name, []).append(args[0].double())
            )
    with torch.no_grad():
        for x in BATCHES:
            copied(x)
    for layer in capture.norms:
        sums = layer.seen[propagation]
        x = torch.cat(seen[layer.name]).transpose(0, 1).flatten(1)
        assert (sums.values, sums.samples, sums.batches) == (x.shape[1], 32, 4)
        np.testing.assert_allclose(sums.mean, x.mean(1), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(sums.var, x.var(1, correction=0), rtol=1e-12)
        assert sums.min.tolist() == x.min(1).values.tolist()
        assert sums.max.tolist() == x.max(1).values.tolist()


def test_what_is_measured_is_that_of_plain_torch():
    net, given = off(), statistics()

    def metric(output, batch):
        return output.softmax(1)[:, 0].mean() * batch.mean()

    def change(x):
        return 2 * x - 0.5

    uneven = [*BATCHES[:2], BATCHES[2][:3]]
    session = Session(net, data(uneven))
    with session.open():
        session.capture()
        measured = session.measure(given, metric)
        changed = session.measure(given, metric, change)
        plain = session.measure({})
        training = session.measure({}, metric, propagation=Propagation.TRAINING)
    assert plain == (pytest.approx(gap_by_hand(net, uneven), rel=1e-6), None)
    for got, inputs in ((measured, uneven), (changed, [change(x) for x in uneven])):
        wanted = by_hand(net, inputs, training=True)
        output = by_hand(with_statistics(net, given), inputs, training=False)
        apart = (output - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()
        assert got.gap == pytest.approx(float(apart.sqrt()), rel=1e-6)
        parts = zip(output.split([8, 8, 3]), uneven, strict=True)  # of the batch as the data gave
        scores = sum(float(metric(y, x)) * len(x) for y, x in parts)
        assert got.metric == pytest.approx(scores / 19, rel=1e-6)
    assert measured.gap != pytest.approx(changed.gap, rel=1e-3)
    parts = zip(by_hand(net, uneven, training=True).split([8, 8, 3]), uneven, strict=True)
    scores = sum(float(metric(y, x)) * len(x) for y, x in parts)
    assert training == (0.0, pytest.approx(scores / 19, rel=1e-6))


def test_a_measure_without_a_capture_is_the_same():
    net = off()
    session, _ = captured(net)
    with session.open():
        kept = session.measure(statistics())
    session = Session(net, data(BATCHES))
    with session.open():
        assert session.measure(statistics()) == kept


def test_outputs_of_other_batches_are_not_taken_for_these():
    net = off()
    session, _ = captured(net)
    session.data = data(images(seed=4))
    with session.open():
        gap = session.measure({}).gap
    assert gap == pytest.approx(gap_by_hand(net, images(seed=4)), rel=1e-6)


def test_outputs_that_have_no_room_are_made_anew():
    net = off()
    session = Session(net, data(BATCHES))
    session._kept.room = 100  # one batch's 8 x 3 numbers of 4 bytes
    with session.open():
        session.capture()
        assert list(session._kept.outputs) == [0]
        gap = session.measure({}).gap
    assert gap == pytest.approx(gap_by_hand(net, BATCHES), rel=1e-6)


def test_a_pass_is_told_for_each_batch():
    told = []
    session = Session(made(), data(BATCHES), advance=told.append)
    with session.open():
        session.measure({})
    assert told == [1, 1, 1, 1]


# ---------------------------------------------- twice the same


def test_two_runs_give_the_same_bits():
    first, again = (bits(captured(off(), per_batch=True)[1]) for _ in range(2))
    assert first == again
    assert bits(captured(made())[1]) != bits(captured(off())[1])


@pytest.mark.parametrize("loader", ["shuffled", "augmented"])
def test_a_loader_that_shuffles_gives_the_same_gap(code, loader):
    batches = open_data([f"{code('loaders.py', LOADERS)}:{loader}"])
    net = off()
    session, capture = captured(net, batches)
    with session.open():
        assert session.measure({}).gap == capture.gap(Propagation.EVAL)
        seen = [batch.args[0] for _, batch in session.batches()]
        again = [batch.args[0] for _, batch in session.batches()]
    assert all(a.equal(b) for a, b in zip(seen, again, strict=True))
    assert capture.gap(Propagation.EVAL) == pytest.approx(gap_by_hand(net, seen), rel=1e-6)
    assert captured(off(), batches)[1].gap(Propagation.EVAL) == capture.gap(Propagation.EVAL)


# ---------------------------------------------- models of other kinds


def test_frozen_layers_are_neither_trained_nor_renewed():
    net = off()
    session, capture = captured(net, frozen=["bn2"])
    assert [layer.frozen for layer in capture.norms] == [False, True, False]
    assert set(session.renewed) == {"bn1", "bn3"}


def test_a_layer_that_the_forward_pass_puts_into_training_is_told():
    class Puts(Net):
        def forward(self, x):
            self.bn3.train()
            return super().forward(x)

    _, capture = captured(Puts().eval())
    assert [layer.in_training for layer in capture.norms] == [False, False, True]


def test_a_shared_layer_counts_its_calls():
    class Shares(Net):
        def forward(self, x):
            return super().forward(self.pre(self.pre(x)))

    net = Shares()
    net.pre = nn.BatchNorm2d(3)
    _, capture = captured(net)
    (pre,) = (layer for layer in capture.norms if layer.name == "pre")
    assert (pre.calls, pre.order) == (2, 1)
    assert pre.seen[Propagation.EVAL].values == 2 * 32 * 64


@pytest.mark.parametrize(
    "norm",
    [
        nn.SyncBatchNorm(3),
        nn.BatchNorm2d(3, affine=False),
        nn.BatchNorm2d(3, momentum=None),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.InstanceNorm2d(3, track_running_stats=True),
    ],
    ids=repr,
)
def test_layers_of_every_kind_are_captured(norm):
    net = nn.Sequential(norm, nn.Flatten(), nn.Linear(192, 3)).train()
    before = snapshot(net)
    _, capture = captured(net)
    assert snapshot(net) == before
    (layer,) = capture.norms
    assert layer.per_sample == isinstance(norm, nn.InstanceNorm2d)
    x = torch.cat(BATCHES).double().transpose(0, 1).flatten(1)
    for propagation in (Propagation.TRAINING, Propagation.EVAL):
        np.testing.assert_allclose(layer.seen[propagation].mean, x.mean(1), rtol=1e-12)
    if norm.running_mean is None:
        assert capture.gap(Propagation.EVAL) == 0
    else:
        assert capture.gap(Propagation.EVAL) > 0.1


# ---------------------------------------------- what cannot be measured


def test_one_value_a_channel_is_refused_in_training_and_runs_in_evaluation():
    net = made()
    before = snapshot(net)
    single = [x[:1, :, :1, :1] for x in BATCHES]
    session, capture = captured(net, data(single))
    assert "Expected more than 1 value per channel" in capture.refused_training
    assert capture.no_gap == capture.refused_training
    assert session.refused
    assert capture.gap(Propagation.EVAL) is None
    for layer in capture.norms:
        assert list(layer.seen) == [Propagation.EVAL]
        assert layer.seen[Propagation.EVAL].values == 4
    with session.open():
        measured = session.measure({}, lambda output, _: output.mean())
    mean = float(by_hand(net, single, training=False).mean())
    assert measured == (None, pytest.approx(mean, rel=1e-5))
    assert snapshot(net) == before


def test_one_such_batch_at_the_end_is_left_out():
    net = off()
    session, capture = captured(net, data([*BATCHES, BATCHES[0][:1]]))
    assert capture.left_out == ("4",)  # bn3 has one value a channel then
    assert not capture.refused_training
    assert [sums.samples for layer in capture.norms for sums in layer.seen.values()] == [32] * 9
    assert capture.gap(Propagation.EVAL) == pytest.approx(gap_by_hand(net, BATCHES), rel=1e-6)
    with session.open():
        assert session.measure({}).gap == capture.gap(Propagation.EVAL)


def test_an_output_without_a_floating_tensor_has_no_gap():
    class Counts(Net):
        def forward(self, x):
            return super().forward(x).argmax(1)

    session, capture = captured(Counts())
    assert capture.no_gap == "the output holds no floating-point tensor"
    assert (capture.gap(Propagation.EVAL), capture.gap_floor) == (None, None)
    assert capture.norms[2].seen[Propagation.TRAINING].samples == 32
    with session.open():
        assert session.measure({}, lambda output, _: len(output)) == (None, 8.0)


def test_outputs_of_changing_shape_have_no_gap():
    class Picks(Net):
        def forward(self, x):
            y = super().forward(x)
            return y[y[:, 0] > 0]

    assert captured(Picks())[1].no_gap == "the outputs in eval and in training differ in shape"
