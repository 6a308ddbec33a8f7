"""What is taken in while the user's own code runs a model, which goes on as if nothing were."""

from __future__ import annotations

import copy
import io
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bncli.errors import FileError, ModelError, UsageError
from bncli.live.recording import Recording
from bncli.loaders.statistics import read_statistics
from bncli.model.capture import Propagation
from tests.live.small import Net, images, made

TRAINING, EVAL = Propagation.TRAINING, Propagation.EVAL


def trained(net, batches, *, recorded=False, steps=3):
    """The net after some steps of an optimiser, and the recording of them."""
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    recording = Recording(net)
    net.train()
    if recorded:
        recording.__enter__()
    losses = []
    for _ in range(steps):
        for x in batches:
            loss = nn.functional.dropout(net(x), 0.5).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    recording.__exit__(None, None, None)
    return losses, recording


def inputs_of(net, name, batches):
    """What a layer takes in, by a hook of one's own."""
    seen = []
    layer = net.get_submodule(name)
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    with torch.no_grad():
        for x in batches:
            net(x)
    handle.remove()
    return seen


def mean_by_fsum(tensors, channel):
    values = torch.cat(tensors).double().transpose(0, 1).flatten(1)[channel].tolist()
    return math.fsum(values) / len(values)


# ---------------------------------------------------------------------------- what is seen


def test_each_pass_belongs_to_the_mode_of_the_layers():
    net, batches = made(), images(batches=5)
    seen = {}
    with Recording(net) as stats:
        for mode, some in ((False, batches[:3]), (True, batches[3:])):
            net.train(mode)
            seen[mode] = inputs_of(net, "bn2", some)
    capture = stats.capture
    assert [layer.name for layer in capture.layers] == ["input", "bn1", "bn2", "bn3"]
    assert [layer.order for layer in capture.layers] == [0, 1, 2, 3]
    for layer in capture.layers:
        assert {mode: sums.batches for mode, sums in layer.seen.items()} == {EVAL: 3, TRAINING: 2}
    bn2 = capture.layers[2]
    for mode, wanted in ((EVAL, seen[False]), (TRAINING, seen[True])):
        assert bn2.seen[mode].mean[4] == pytest.approx(mean_by_fsum(wanted, 4), rel=1e-12)
        assert bn2.seen[mode].samples == sum(map(len, wanted))
    assert capture.layers[0].seen[TRAINING].mean[1] == pytest.approx(
        mean_by_fsum(batches[3:], 1), rel=1e-12
    )
    assert not capture.weights_moved
    assert capture.outputs == ()
    assert "one mode alone" in capture.no_gap


def test_layers_that_alone_are_in_training_make_a_pass_of_training():
    """As where statistics are estimated anew on data of another domain."""
    net = made().eval()
    for name in ("bn1", "bn2", "bn3"):
        net.get_submodule(name).train()
    with Recording(net) as stats:
        net(images()[0])
    assert {mode for layer in stats.capture.layers for mode in layer.seen} == {TRAINING}
    assert not any(layer.in_training or layer.frozen for layer in stats.capture.norms)
    assert stats.capture.still_training == ()


def test_a_layer_left_in_training_is_told_in_evaluation():
    net = nn.Sequential(made().eval(), nn.Dropout(0.1))
    net[0].bn2.train()
    net[1].train()
    net.training = False
    with Recording(net) as stats:
        net(images()[0])
    assert {layer.name: layer.in_training for layer in stats.capture.norms} == {
        "0.bn1": False, "0.bn2": True, "0.bn3": False,
    }  # fmt: skip
    assert stats.capture.still_training == ("1",)
    assert {mode for layer in stats.capture.norms for mode in layer.seen} == {EVAL}


def test_layers_kept_in_evaluation_while_the_model_trains_are_frozen():
    net = made().train()
    net.bn1.eval()
    with Recording(net) as stats:
        net(images()[0])
    assert [layer.frozen for layer in stats.capture.norms] == [True, False, False]
    assert {mode for layer in stats.capture.norms for mode in layer.seen} == {TRAINING}
    assert stats.capture.still_training == ()


def test_frozen_layers_are_labelled_as_the_pass_is():
    net = made().train()
    net.bn1.eval()
    net.bn2.requires_grad_(False)
    net.bn2.num_batches_tracked -= 1  # since when it has counted nothing
    with Recording(net, frozen=["bn1"]) as stats:
        net(images()[0])
        net.eval()
        net(images()[1])
    assert [layer.frozen for layer in stats.capture.norms] == [True, True, False]
    for layer in stats.capture.norms:
        assert {mode: sums.batches for mode, sums in layer.seen.items()} == {TRAINING: 1, EVAL: 1}


def test_active_dropout_in_training_is_named():
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3), nn.Dropout(0.0)).train()
    with Recording(net) as stats:
        net(torch.randn(4, 3))
    assert stats.capture.dropout == ("0",)
    with Recording(net.eval()) as stats:
        net(torch.randn(4, 3))
    assert stats.capture.dropout == ()


def test_a_part_that_is_called_by_itself_is_taken_in_without_an_input():
    net = made().train()
    with Recording(net) as stats:
        net.bn1(net.conv1(images()[0]))
    assert [layer.name for layer in stats.capture.layers] == ["bn1"]
    assert stats.capture.uncalled == ("bn2", "bn3")


def test_a_layer_that_is_called_twice_in_a_pass_is_counted_so():
    norm = nn.BatchNorm1d(3)
    net = nn.Sequential(norm, nn.ReLU(), norm).train()
    with Recording(net) as stats:
        for seed in range(3):
            net(torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)))
    (layer,) = stats.capture.norms
    assert (layer.calls, layer.seen[TRAINING].batches) == (2, 6)


def test_a_model_that_is_a_layer_itself():
    with Recording(nn.BatchNorm1d(3)) as stats:
        stats._model(torch.randn(4, 3))
    assert [layer.name for layer in stats.capture.layers] == ["input", ""]


def test_a_call_without_values_is_none():
    """As where an image has no region to look at."""
    norm = nn.BatchNorm1d(3).eval()
    with Recording(norm) as stats:
        norm(torch.zeros(0, 3))
        norm(torch.ones(2, 3))
    assert stats.capture.norms[0].seen[EVAL].batches == 1
    with Recording(norm) as stats:
        norm(torch.zeros(0, 3))
    assert stats.capture.layers == ()


def test_instance_norm_takes_a_sample_without_a_batch_axis():
    norm = nn.InstanceNorm1d(3, track_running_stats=True)
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    with Recording(norm) as stats:
        norm(x)
        for sample in x:
            norm(sample)
    (layer,) = stats.capture.norms
    assert (layer.num_features, layer.seen[TRAINING].batches) == (3, 8)
    assert layer.seen[TRAINING].mean[1] == pytest.approx(mean_by_fsum([x], 1), rel=1e-12)


def test_a_lazy_model_gets_its_weights_inside():
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d())
    with Recording(net) as stats:
        net(images()[0])
    assert [layer.name for layer in stats.capture.layers] == ["input", "1"]
    assert not stats.capture.weights_moved


def test_the_batches_are_kept_where_that_is_asked_for():
    net, batches = made(), images(batches=2)
    with Recording(net, per_batch=True) as stats:
        for x in batches:
            net(x)
    table = stats.capture.per_batch["bn1", EVAL]
    wanted = [x.double().mean((0, 2, 3)).numpy() for x in inputs_of(net, "bn1", batches)]
    np.testing.assert_allclose(table["mean"], wanted, rtol=1e-6)
    assert table["count"].tolist() == [8 * 64] * 2


# ---------------------------------------------------------------------------- nothing is disturbed


def test_training_is_bit_for_bit_as_without():
    alone, beside = made(), made()
    batches = images()
    losses, _ = trained(alone, batches)
    recorded, stats = trained(beside, batches, recorded=True)
    assert recorded == losses
    for (name, a), b in zip(alone.state_dict().items(), beside.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert stats.capture.weights_moved
    assert stats.capture.layers[1].seen[TRAINING].batches == 12
    assert torch.equal(beside.bn1.running_mean.double(), _running_mean(stats, "bn1"))


def _running_mean(stats, name):
    (layer,) = [layer for layer in stats.capture.norms if layer.name == name]
    return torch.from_numpy(layer.state.running_mean).double()


def test_the_kernel_is_that_of_the_weights_as_they_became():
    net = made()
    _, stats = trained(net, images(), recorded=True)
    kernel = stats.capture.norms[0].kernel
    middle = net.conv1.weight.detach().double().sum((2, 3)).numpy()
    assert kernel.padded
    assert kernel.sums.shape == middle.shape
    assert not np.allclose(kernel.sums, made().conv1.weight.detach().sum((2, 3)), atol=1e-3)
    fresh = nn.Conv2d(3, 8, 3, bias=False)
    fresh.weight.data.copy_(net.conv1.weight)
    plain = nn.Sequential(fresh, nn.BatchNorm2d(8))
    with Recording(plain) as unpadded:
        plain(images()[0])
        fresh.weight.data.mul_(2)
    np.testing.assert_allclose(unpadded.capture.norms[0].kernel.sums, 2 * middle, rtol=1e-6)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_counts_once(reentrant):
    net = made().train()
    x = images()[0].requires_grad_()
    with Recording(net) as stats:
        checkpoint(net, x, use_reentrant=reentrant).sum().backward()
    for layer in stats.capture.layers:
        assert {mode: sums.batches for mode, sums in layer.seen.items()} == {TRAINING: 1}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_what_a_layer_takes_is_taken_as_it_is_stored(dtype):
    norm = nn.BatchNorm1d(3).to(dtype)
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    with Recording(norm) as stats:
        norm(x)
    assert stats.capture.norms[0].seen[TRAINING].mean[2] == pytest.approx(
        mean_by_fsum([x], 2), rel=1e-12
    )


def test_copies_and_saved_models_have_no_hooks():
    net, x = made(), images()[0]
    with Recording(net) as stats:
        net(x)
        copied = copy.deepcopy(net)
        file = io.BytesIO()
        torch.save(net, file)
        file.seek(0)
        for other in (copied, torch.load(file, weights_only=False)):
            assert torch.equal(other(x), net(x))
    assert b"bncli" not in file.getvalue()
    assert stats.capture.norms[0].seen[EVAL].batches == 3


def hooks(net):
    """All hooks of the modules."""
    return [
        hook
        for module in net.modules()
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    ]


def test_an_exception_in_the_block_passes_and_leaves_no_hook():
    net, wrong = made(), torch.randn(2, 5, 8, 8)
    stats = Recording(net)

    def loop():
        with stats:
            net(images()[0])
            net(wrong)

    with pytest.raises(RuntimeError, match="5 channels"):
        loop()
    assert hooks(net) == []
    assert stats.capture.layers[0].num_features == 3
    assert stats.capture.norms[0].seen[EVAL].batches == 1
    assert stats._pass is None


def test_a_pass_that_fails_and_is_caught_ends():
    net = made()
    with Recording(net) as stats:
        with pytest.raises(RuntimeError, match="5 channels"):
            net(torch.randn(2, 5, 8, 8))
        assert stats._pass is None
        net(images()[0])
        net.bn1(torch.randn(2, 8, 3, 3))  # by itself
    assert stats.capture.norms[0].calls == 1


def test_modes_are_not_switched_to_look_at_the_model():
    """As a train() method may do more, such as merging weights."""

    class Stubborn(Net):
        def train(self, mode=True):
            raise AssertionError(mode)

    net = Stubborn()
    with Recording(net) as stats:
        net(images()[0])
    assert stats.capture.norms[0].seen[TRAINING].batches == 1


# ---------------------------------------------------------------------------- blocks


def test_two_models_and_two_recordings_of_one():
    first, second = made(), made(seed=1)
    x = images()[0]
    with Recording(first) as a, Recording(second) as b, Recording(first) as c:
        first(x)
        first(x)
        second(x)
    assert [each.capture.norms[0].seen[EVAL].batches for each in (a, b, c)] == [2, 1, 2]
    assert a.capture.fingerprint == c.capture.fingerprint != b.capture.fingerprint


def test_a_block_may_be_entered_again_but_not_inside_itself():
    net, x = made(), images()[0]
    stats = Recording(net)
    for _ in range(2):
        with stats:
            net(x)
    net(x)
    assert stats.capture.norms[0].seen[EVAL].batches == 2
    with stats, pytest.raises(UsageError, match="open already"):
        stats.__enter__()
    assert hooks(net) == []


def test_what_was_seen_can_be_had_inside_the_block():
    net, x = made(), images()[0]
    with Recording(net) as stats:
        net(x)
        assert stats.capture.norms[0].seen[EVAL].batches == 1
        assert not stats.capture.weights_moved
        with torch.no_grad():
            net.conv2.weight += 1
        assert stats.capture.weights_moved
    assert stats.capture.weights_moved


def test_running_statistics_that_move_are_no_weights():
    net = made().train()
    with Recording(net) as stats:
        net(images()[0])
    assert not stats.capture.weights_moved


def test_it_says_how_much_it_saw():
    net = made()
    with Recording(net) as stats:
        net(images()[0])
    assert repr(stats) == "<bncli.capture of Net: 3 of 3 BatchNorm layers called, 3 calls>"


# ---------------------------------------------------------------------------- saving


def test_it_is_saved_as_a_statistics_file(folder):
    net, batches = made(), images()
    with Recording(net) as stats:
        for x in batches:
            net(x)
    stats.save("stats.npz")
    read = read_statistics(["stats.npz"])
    assert read.norms[1].seen[EVAL].mean.tolist() == stats.capture.norms[1].seen[EVAL].mean.tolist()
    assert read.source["recorded"] is True
    assert read.source["class"].endswith("small.Net")
    assert read.fingerprint == stats.capture.fingerprint
    assert set(read.fingerprint) == {"weights", "running_statistics"}


def test_what_cannot_be_saved_is_said(folder):
    net = made()
    with Recording(net) as stats:
        pass
    with pytest.raises(UsageError, match=r"stats\.save stats\.npz: no BatchNorm layer ran"):
        stats.save("stats.npz")
    with Recording(net) as stats:
        net(images()[0])
    with pytest.raises(UsageError, match=r"stats\.save stats\.pt: a statistics file is an \.npz"):
        stats.save("stats.pt")
    with pytest.raises(FileError, match="folder 'missing' does not exist"):
        stats.save("missing/stats.npz")
    assert list(folder.iterdir()) == []


def test_a_model_without_layers_runs_as_ever():
    net = nn.Linear(3, 2)
    with Recording(net) as stats:
        net(torch.randn(4, 3))
    assert stats.capture.norms == ()


def test_what_no_statistics_can_be_taken_of_ends_no_training():
    """Such as complex numbers, which another kind of normalisation takes."""

    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("running_mean", torch.zeros(3))
            self.register_buffer("running_var", torch.ones(3))

        def forward(self, x):
            return x

    net = nn.Sequential(Complex())
    with Recording(net) as stats:
        net(torch.zeros(4, 3, dtype=torch.complex64))
    with pytest.raises(ModelError, match="0: Values of dtype complex64 have no BatchNorm statisti"):
        stats.capture  # noqa: B018  # which raises


def scripted_module():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of all that makes such a file
        return torch.jit.script(nn.Sequential(nn.BatchNorm1d(3)))


def test_what_is_no_model_is_refused():
    with pytest.raises(UsageError, match=r"takes a model .*, not dict"):
        Recording({})
    with pytest.raises(UsageError, match="head: the model has no such layer"):
        Recording(made(), frozen=["head"])
    script = scripted_module()
    with pytest.raises(ModelError, match="takes no hooks"):
        Recording(script)


def test_a_compiled_model_is_taken_in_and_runs_compiled_afterwards():
    net, x = made(), images()[0]
    compiled_parts = []

    def backend(graph, _):
        compiled_parts.append(graph)
        return graph.forward

    compiled = torch.compile(net, backend=backend)
    compiled(x)
    before = len(compiled_parts)
    with Recording(net) as first:
        compiled(x)
        with Recording(compiled) as second:
            compiled(x)
    compiled(x)
    assert [layer.seen[EVAL].batches for layer in first.capture.layers] == [2, 2, 2, 2]
    assert [layer.seen[EVAL].batches for layer in second.capture.layers] == [1, 1, 1, 1]
    assert [layer.name for layer in second.capture.norms] == ["bn1", "bn2", "bn3"]
    assert len(compiled_parts) == before > 0
    torch._dynamo.reset()


def test_code_compiled_in_the_block_takes_nothing_in_afterwards():
    net, x = made(), images()[0]
    compiled = torch.compile(net, backend="eager")
    with Recording(net) as stats:
        compiled(x)
    compiled(x)
    assert [layer.seen[EVAL].batches for layer in stats.capture.norms] == [1, 1, 1]
    torch._dynamo.reset()
