"""Every fault of a checkpoint, made by what makes it, one at a time.

A fault is a function that returns what is saved, and after it the flags of the command. `FAULTS`
says which code must find it, in which layers, and which consequences it has besides.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from tests.rulebook.networks import (
    batch,
    deep,
    made,
    norms,
    optimizer_of,
    perceptron,
    residual,
    train,
    trained,
)

EPS = 1e-5


@dataclass(frozen=True)
class Fault:
    code: str
    make: Callable
    where: tuple[str, ...]
    cause: str | None = None
    besides: frozenset[str] = frozenset()
    flags: tuple[str, ...] = ()


FAULTS: dict[str, Fault] = {}


def fault(code, *where, cause=None, besides=(), flags=()):
    """Enter a function into FAULTS, under its own name."""

    def enter(make):
        name = f"{code}-{make.__name__.replace('_', '-')}"
        FAULTS[name] = Fault(code, make, where, cause, frozenset(besides), tuple(flags))
        return make

    return enter


def evaluating(*names):
    """Put these layers, or all, into evaluation mode before training begins."""

    def mode(model):
        for name, module in norms(model).items():
            if not names or name in names:
                module.eval()

    return mode


@torch.no_grad()
def average_into(copy_, live, decay=0.9, *, buffers=False):
    """The usual moving average over parameters, and over floating-point buffers if asked for."""
    mine, its = list(copy_.parameters()), list(live.parameters())
    if buffers:
        mine += [buffer for buffer in copy_.buffers() if buffer.is_floating_point()]
        its += [buffer for buffer in live.buffers() if buffer.is_floating_point()]
    torch._foreach_mul_(mine, decay)  # as optimisers do: all in one call
    torch._foreach_add_(mine, its, alpha=1 - decay)


# Never estimated.


@fault("BN101", "layer2.0.bn1", "layer2.0.bn2", cause="never-in-training-mode-or-reset")
def a_block_in_evaluation_mode_during_training():
    return train(made(residual), mode=evaluating("layer2.0.bn1", "layer2.0.bn2")).state_dict()


@fault("BN101", "layer1.0.bn1")
def a_late_initialisation_that_resets_buffers():
    model = trained()
    model.layer1[0].bn1.reset_running_stats()
    return model.state_dict()


@fault("BN102", "stem.1", "layer1.0.bn1")
def the_whole_network_in_evaluation_mode_during_training():
    return train(made(residual), mode=evaluating()).state_dict()


@fault("BN103", "stem.1", "layer1.0.bn2", cause="untrained")
def a_fresh_network():
    return made(residual).state_dict()


@fault("BN103", "layer2.0.bn1", besides={"BN302"})
def a_block_that_no_batch_has_reached():
    model = trained()
    torch.manual_seed(2)
    model.layer2[0].bn1 = nn.BatchNorm2d(12)
    return model.state_dict()


@fault("BN104", "stem.1", "layer1.1.bn1", cause="momentum-0-or-reset")
def momentum_0():
    model = made(residual)
    for module in norms(model).values():
        module.momentum = 0.0
    return train(model).state_dict()


@fault("BN105", "stem.1", "layer2.0.bn1", cause="few-batches")
def ten_steps():
    return train(made(residual), 10).state_dict()


@fault("BN105", "0.2", flags=("--momentum", "0.001"), besides={"BN305"})
def a_momentum_too_small_for_the_run():
    model = made(perceptron)
    for module in norms(model).values():
        module.momentum = 0.001
    return {f"0.{name}": value for name, value in train(model).state_dict().items()}


@fault("BN106", "layer2.0.bn1", "layer2.0.bn2", cause="buffers-not-saved")
def parameters_of_a_block_saved_without_its_buffers():
    model = trained()
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("layer2.")}
    return state | {f"layer2.{k}": v.detach() for k, v in model.layer2.named_parameters()}


@fault("BN106", "stem.1", cause="half-saved")
def a_running_var_that_was_filtered_out():
    return {k: v for k, v in trained().state_dict().items() if k != "stem.1.running_var"}


@fault("BN106", "layer1.0.bn1", cause="buffers-not-saved")
def a_stored_module_whose_buffers_were_dropped():
    model = trained()
    bn = model.layer1[0].bn1
    bn.running_mean = bn.running_var = bn.num_batches_tracked = None
    return model


@fault("BN107", "in1", cause="statistics-alone")
def an_instance_norm_from_before_counters():
    """It was made with track_running_stats and without weight and bias."""
    norm = nn.InstanceNorm2d(8, track_running_stats=True)
    for _ in range(200):
        norm(torch.randn(4, 8, 5, 5))
    return trained().state_dict() | {
        f"in1.{name}": getattr(norm, name) for name in ("running_mean", "running_var")
    }


# Corrupt.


@fault("BN201", "layer2.0.bn1", cause="one-value-a-channel")
def a_batch_of_one_value_a_channel():
    """Through torch.batch_norm, which does not check, as fused and foreign kernels do not."""
    model = trained()
    bn = model.layer2[0].bn1
    torch.batch_norm(
        torch.randn(1, 12, 1, 1),
        bn.weight,
        bn.bias,
        bn.running_mean,
        bn.running_var,
        True,
        0.1,
        EPS,
        False,
    )
    return model.state_dict()


@fault("BN201", "stem.1", "layer1.0.bn1", "layer2.0.bn2", cause="nan-activations")
def a_training_batch_with_a_nan():
    model = trained()
    x, _ = batch(torch.Generator().manual_seed(5))
    x[3, 1, 2, 2] = float("nan")
    model.train()(x)
    return model.state_dict()


@fault("BN201", "stem.1", cause="inf-activations", besides={"BN202"})
def a_training_batch_with_an_infinity():
    model = trained()
    x = torch.randn(4, 8, 6, 6)
    x[0, 2, 1, 1] = float("inf")
    model.stem[1].train()(x)
    return model.state_dict()


@fault("BN201", "stem.1", "layer1.0.bn1", cause="diverged")
def an_optimiser_step_with_a_nan_gradient():
    model = trained()
    optimizer = optimizer_of(model)
    (model.eval()(torch.randn(4, 3, 6, 6)).sum() * float("nan")).backward()
    optimizer.step()
    return model.state_dict()


@fault("BN202", "stem.1", cause="overflow")
def inputs_whose_squares_overflow():
    model = trained()
    model.stem[1].train()(torch.randn(4, 8, 6, 6) * 1e25)
    return model.state_dict()


@fault("BN202", "stem.1", cause="cast-to-half", besides={"BN505"})
def a_cast_to_float16_of_unscaled_statistics():
    model = train(made(residual), transform=lambda x: x * 5000)
    return model.half().state_dict()


@fault("BN203", "stem.1", cause="eps-subtracted")
def eps_taken_off_the_variances_of_dead_channels():
    """As conversions for a frozen layer do that adds eps back when it is loaded."""
    bn = nn.BatchNorm2d(8, momentum=0.5)
    x = torch.randn(4, 8, 3, 3)
    x[:, :5] = 0
    for _ in range(200):
        bn(x)
    model = trained()
    model.stem[1] = bn
    bn.running_var -= EPS
    return model.state_dict()


@fault("BN203", "layer1.0.bn1", cause="offset")
def a_file_read_one_value_too_early():
    model = trained()
    bn = model.layer1[0].bn1
    bn.running_mean -= bn.running_mean.max() + 1  # behind a ReLU such means are common
    flat = torch.cat([bn.running_mean, bn.running_var])
    bn.running_var.copy_(flat[7:15])
    return model.state_dict()


@fault("BN203", "stem.1", cause="cancellation", besides={"BN401"})
def a_variance_in_one_pass_of_a_large_mean():
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1)) * 0.01 + 1000
    model = trained()
    model.stem[1].running_var.copy_((x**2).mean(0) - x.mean(0) ** 2)
    model.stem[1].running_mean.copy_(x.mean(0))
    return model.state_dict()


@fault("BN204", "stem.1", cause="eps-subtracted", besides={"BN405", "BN504"})
def eps_taken_off_almost_dead_channels():
    bn = nn.BatchNorm2d(8)
    x = torch.randn(16, 8, 6, 6)
    x[:, :5] *= 1e-4
    for _ in range(300):
        bn(x)
    model = trained()
    model.stem[1] = bn
    bn.running_var -= EPS
    return model.state_dict()


@fault("BN205", "layer1.0.bn1", cause="swapped")
def a_port_with_mean_and_variance_in_the_wrong_order():
    model = trained()
    bn = model.layer1[0].bn1
    order = [bn.weight, bn.bias, bn.running_var, bn.running_mean]
    state = model.state_dict()
    for name, value in zip(("weight", "bias", "running_mean", "running_var"), order, strict=True):
        state[f"layer1.0.bn1.{name}"] = value.detach().clone()
    return state


@fault("BN206", "layer1.0.bn1")
def channels_pruned_from_weight_and_bias_alone():
    model = trained()
    bn = model.layer1[0].bn1
    keep = bn.weight.abs().argsort()[3:]
    bn.weight, bn.bias = nn.Parameter(bn.weight[keep]), nn.Parameter(bn.bias[keep])
    return model.state_dict()


@fault("BN206", "stem.1")
def a_statistic_kept_as_a_column():
    state = trained().state_dict()
    return state | {"stem.1.running_var": state["stem.1.running_var"][:, None]}


@fault("BN211", "stem.1", cause="eps")
def a_conversion_that_wrote_a_nan_for_eps():
    model = trained()
    model.stem[1].eps = float("nan")
    return model


@fault("BN211", "stem.1", cause="momentum")
def a_conversion_that_wrote_a_momentum_of_2():
    model = trained()
    model.stem[1].momentum = 2.0
    return model


@fault("BN207", "stem.1")
def a_tensor_on_the_meta_device():
    state = trained().state_dict()
    state["stem.1.running_var"] = state["stem.1.running_var"].to("meta")
    return state


@fault("BN203", "stem.1", cause="not-a-variance", besides={"BN204"})
def a_server_whose_optimiser_steps_the_buffers():
    """The clients' average is taken for a gradient, of running_var too, and overshoots."""
    server = made(residual)
    state = {k: v.clone() for k, v in server.state_dict().items()}
    speed = {k: torch.zeros_like(v) for k, v in state.items()}
    for step in range(20):
        server.load_state_dict(state)
        client = train(server, 2, seed=step, transform=lambda x: x * 0.2).state_dict()
        for name, value in state.items():
            if value.is_floating_point():
                speed[name] = 0.9 * speed[name] + client[name] - value
                state[name] = value + speed[name]
    assert state["stem.1.running_var"].min() < -0.1
    return trained().state_dict() | {k: v for k, v in state.items() if k.startswith("stem.1.runn")}


@fault("BN208", "layer2.0.bn1", cause="zero-filled")
def a_conversion_that_wrote_zeros_for_statistics():
    state = trained().state_dict()
    for leaf in ("running_mean", "running_var"):
        state[f"layer2.0.bn1.{leaf}"].zero_()
    return state


@fault("BN208", "stem.1", "layer2.0.bn2", cause="zero-filled")
def buffers_of_zeros_for_keys_that_were_missing():
    """Whatever the weights are, those of exactly 0 in a residual branch too."""
    state = trained().state_dict()
    for name, value in made(residual).state_dict().items():
        if ".bn2." in name or name.startswith("stem.1."):
            state[name] = torch.zeros_like(value) if "running" in name else value
    return state


@fault("BN208", "stem.1", flags=("--momentum", "none"), cause="zero-filled-or-zero-input")
def statistics_of_images_that_are_all_0():
    model = trained()
    bn = model.stem[1]
    bn.momentum = None
    bn.reset_running_stats()
    bn.train()(torch.zeros(4, 8, 6, 6))
    return model.state_dict()


def memory(*numbers):
    """What a vector of float32 shows where other things lay: pointers, text, small integers."""
    return torch.from_numpy(np.array(numbers, "<u4").view("<f4").copy())


POINTERS = memory(*(0x00007F12, 0xE4A01C10, 0x00007F12, 0x03F5A0C0) * 2)
TEXT = memory(*(0x6E6E7572, 0x5F676E69, 0x6E61656D, 0x0000002E, 0, 0, 0x00000021, 0))


@fault("BN209", "layer1.0.bn1", cause="uninitialised-or-edited")
def memory_that_held_pointers():
    model = trained()
    model.layer1[0].bn1.running_mean = POINTERS.clone()
    model.layer1[0].bn1.num_batches_tracked.zero_()
    return model.state_dict()


@fault("BN209", "layer1.0.bn1", cause="uninitialised-or-edited")
def memory_that_held_text():
    model = trained()
    model.layer1[0].bn1.running_var = TEXT.clone()
    return model.state_dict()


@fault("BN209", "layer1.0.bn2")
def one_value_of_no_training():
    model = trained()
    model.layer1[0].bn2.running_mean[5] = -4e30
    return model.state_dict()


@fault("BN209", "stem.1")
def a_nan_that_is_no_number_of_any_arithmetic():
    model = trained()
    model.stem[1].running_var[2:4] = memory(0x7F812345, 0xFFA00001)
    return model.state_dict()


@fault("BN209", "stem.1", besides={"BN307"})
def tensors_filled_as_deterministic_algorithms_fill_them():
    """torch.use_deterministic_algorithms makes empty floats NaN, and empty integers the largest."""
    model = trained()
    bn = model.stem[1]
    bn.running_mean.fill_(torch.nan)
    bn.running_var.fill_(torch.nan)
    bn.num_batches_tracked.fill_(2**63 - 1)
    return model.state_dict()


@fault("BN210", "layer1.0.bn1", cause="one-tensor-twice", besides={"BN304"})
def buffers_assigned_by_one_index():
    model = trained()
    bn = model.layer1[0].bn1
    first = next(bn.buffers())
    bn.running_mean = bn.running_var = bn.num_batches_tracked = first
    return model.state_dict()


@fault("BN210", "layer1.0.bn1", besides={"BN501"})
def a_conversion_that_wrote_weights_for_variances():
    state = trained().state_dict()
    state["layer1.0.bn1.running_var"] = state["layer1.0.bn1.weight"].half()
    return state | {"layer1.0.bn1.running_mean": state["layer1.0.bn1.running_mean"].half()}


# Counters.


@fault("BN301", "num_batches_tracked")
def a_backbone_from_before_counters():
    """Loading an old file leaves the new keys out where state_dicts are merged by hand."""
    return {
        name: value
        for name, value in trained().state_dict().items()
        if not (name.startswith("layer1.") and name.endswith("num_batches_tracked"))
    }


@fault("BN302", "num_batches_tracked")
def a_backbone_fine_tuned_with_new_layers():
    model = trained()
    torch.manual_seed(3)
    model.layer2[0].bn1 = nn.BatchNorm2d(12)
    return train(model, 85).state_dict()


@fault("BN303", "layer1.0.bn1", "layer1.0.bn2", cause="checkpointing-or-shared", besides={"BN302"})
def activation_checkpointing():
    model = made(residual)
    block = model.layer1[0]
    forward = block.forward
    block.forward = lambda x: checkpoint(forward, x, use_reentrant=False)
    return train(model).state_dict()


@fault("BN303", "stem.1", besides={"BN302"})
def a_stem_shared_by_two_views():
    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
            self.norm = nn.BatchNorm1d(16)
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            views = [self.stem(view).amax((2, 3)) for view in (x, x.flip(3) * 1.1)]
            return self.head(self.norm(torch.cat(views, 1)))

    return train(made(Siamese)).state_dict()


@fault("BN304", "stem.1", "layer2.0.bn2", cause="averaged")
def an_average_of_whole_state_dicts():
    model = trained()
    states = [copy.deepcopy(model.state_dict()), train(model, 7).state_dict()]
    return {name: (states[0][name].float() + states[1][name]) / 2 for name in states[0]}


@fault("BN304", "stem.1", cause="not-one-number")
def a_counter_for_each_channel():
    state = trained().state_dict()
    state["stem.1.num_batches_tracked"] = state["stem.1.num_batches_tracked"].repeat(8)
    return state


@fault("BN305", "stem.1", cause="copied-or-converted")
def an_average_that_leaves_integer_buffers():
    model = made(residual)
    average = copy.deepcopy(model)
    train(model, step=lambda live: average_into(average, live, buffers=True))
    return average.state_dict()


@fault("BN305", "stem.1", flags=("--layer", "stem.*"))
def a_counter_that_loading_filled_in():
    model = made(residual)
    old = {k: v for k, v in trained().state_dict().items() if "num_batches" not in k}
    # A file from before counters has no version, and loading then fills in 0.
    model.load_state_dict(old)
    return model.state_dict()


@fault("BN306", "stem.1", flags=("--momentum", "none"))
def an_old_file_that_training_with_momentum_none_would_wipe():
    return a_counter_that_loading_filled_in()


@fault("BN307", "layer1.0.bn1", cause="not-a-count-of-batches")
def a_counter_in_memory_that_was_never_filled():
    model = trained()
    model.layer1[0].bn1.num_batches_tracked.fill_(140_213_846_525_968)
    return model.state_dict()


# Channels.


def faint_inputs(factor, channels=1):
    """A stem whose BatchNorm sees some channels that hardly vary."""
    bn = nn.BatchNorm2d(8)
    x = torch.randn(16, 8, 6, 6, generator=torch.Generator().manual_seed(4))
    x[:, :channels] *= factor
    for _ in range(400):
        bn(x)
    model = trained()
    model.stem[1] = bn
    return model


@fault("BN401", "stem.1", besides={"BN405", "BN504"})
def an_input_that_hardly_varies():
    return faint_inputs(1e-3).state_dict()


@fault("BN402", "stem.1", cause="dead-input")
def a_dead_channel_under_weight_decay():
    bn = nn.BatchNorm1d(8)
    optimizer = torch.optim.SGD(bn.parameters(), 0.1, weight_decay=0.1)
    x = torch.randn(16, 8)
    x[:, 3] = 0.0
    for _ in range(1000):
        loss = (bn(x)[:, :3] - 1).square().mean() + (bn(x)[:, 4:] - x[:, 4:]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert bn.running_var[3] == 5.605193857299268e-45
    model = trained()
    model.stem[1] = bn
    return model.state_dict()


@fault("BN403", "layer1.0.bn1", cause="pruned")
def channels_pruned_to_0():
    model = trained()
    bn = model.layer1[0].bn1
    prune.l1_unstructured(bn, "weight", amount=3)
    prune.remove(bn, "weight")
    return model.state_dict()


@fault("BN404", "layer1.0.bn1")
def a_layer_that_weight_decay_has_won():
    model = trained()
    bn = model.layer1[0].bn1
    optimizer = torch.optim.SGD(bn.parameters(), 0.5, weight_decay=0.5)
    for _ in range(60):
        bn.weight.grad = torch.zeros_like(bn.weight)
        optimizer.step()
    return model.state_dict()


@fault("BN405", "stem.1", cause="outlier", besides={"BN401", "BN504"})
def one_channel_that_drowns_the_others():
    return faint_inputs(1e-2 * 0.7).state_dict()


@fault("BN406", "stem.1")
def inputs_without_scaling():
    return train(made(residual), transform=lambda x: x * 255).state_dict()


@fault("BN407", "layers", cause="collapsed", besides={"BN404"})
def a_weight_decay_that_won():
    model = made(deep)
    # So strong that nothing is left: on the way there, rounding decides what else is found.
    optimizer = torch.optim.SGD(model.parameters(), 0.3, weight_decay=0.2)
    return train(model, 600, optimizer=optimizer).state_dict()


@fault("BN408", "stem.1", cause="input-hardly-varies")
def an_input_that_is_constant():
    return faint_inputs(0, channels=8).state_dict()


@fault("BN408", "layer2.0.bn1", cause="constant-input-or-never-written")
def variances_of_zero_beside_means():
    model = trained()
    model.layer2[0].bn1.running_var.zero_()
    return model.state_dict()


# Precision.


@fault("BN501", "stem.1", "layer2.0.bn1")
def running_statistics_cast_with_the_buffers():
    model = trained()
    for module in norms(model).values():
        module.running_mean = module.running_mean.half()
        module.running_var = module.running_var.half()
    return model.state_dict()


@fault("BN502", "stem.1", cause="cast-to-half", besides={"BN504", "BN405", "BN505"})
def a_cast_that_rounds_a_variance_to_0():
    return faint_inputs(1e-4).half().state_dict()


@fault("BN503", "stem.1", besides={"BN406"})
def statistics_beyond_float16():
    return train(made(residual), transform=lambda x: x * 5000).state_dict()


@fault("BN504", "stem.1")
def scales_over_several_decades():
    bn = nn.BatchNorm2d(8)
    x = torch.randn(16, 8, 6, 6) * torch.logspace(-1.5, 2.5, 8).view(1, 8, 1, 1)
    for _ in range(400):
        bn(x)
    model = trained()
    model.stem[1] = bn
    return model.state_dict()


@fault("BN505", "dtype")
def a_cast_for_inference():
    return trained().bfloat16().state_dict()


# Layers beside each other.


@fault("BN601", "student.stem.1", "student.layer2.0.bn2")
def a_network_under_two_names():
    model = trained()
    return nn.ModuleDict({"student": model, "probe": copy.deepcopy(model)}).state_dict()


@fault("BN602", "ema.stem.1", "ema.layer2.0.bn2", cause="buffers-left-out")
def a_teacher_made_anew_and_averaged_over_parameters():
    model, teacher = made(residual), made(residual)
    train(model, step=lambda live: average_into(teacher, live))
    return {"model": model.state_dict(), "ema": teacher.state_dict()}


@fault("BN603", "state_dict_ema.stem.1", cause="buffers-copied")
def a_teacher_with_the_buffers_of_the_student():
    model, teacher = made(residual), made(residual)

    def step(live):
        average_into(teacher, live)
        for mine, its in zip(teacher.buffers(), live.buffers(), strict=True):
            mine.copy_(its)

    train(model, step=step)
    return {"state_dict": model.state_dict(), "state_dict_ema": teacher.state_dict()}


@fault("BN604", "model_ema.module.stem.1", besides={"BN305"})
def a_teacher_with_averaged_buffers():
    model = made(residual)
    teacher = copy.deepcopy(model)
    train(model, step=lambda live: average_into(teacher, live, buffers=True))
    return {
        "model": model.state_dict(),
        "model_ema": {f"module.{k}": v for k, v in teacher.state_dict().items()},
    }


def averaged(update):
    """A model and the average of its weights over the last steps."""
    model = trained()
    swa = AveragedModel(model)
    train(model, 30, seed=1, step=swa.update_parameters)
    if update:
        generator = torch.Generator().manual_seed(9)
        torch.optim.swa_utils.update_bn([batch(generator) for _ in range(20)], swa)
    return model, swa


@fault("BN605", "swa.module.stem.1", "swa.module.layer1.1.bn2", cause="update-bn-not-run")
def averaged_weights_without_update_bn():
    model, swa = averaged(update=False)
    return {"model": model.state_dict(), "swa": swa.state_dict()}


@fault("BN606", "n_averaged")
def averaged_weights_alone():
    _, swa = averaged(update=True)
    return swa.state_dict()


@fault(
    "BN607",
    "layers",
    cause="layers-missing-or-added",
    flags=("--expect-layers", str(len(norms(made(residual))))),
)
def saved_without_its_stem():
    state = trained().state_dict()
    return {name: value for name, value in state.items() if not name.startswith("stem.")}


@fault("BN608", "ema.stem.1", "ema.layer1.0.bn1", cause="averaged-too-briefly")
def an_average_that_began_at_a_fresh_network():
    model = made(residual)
    teacher = copy.deepcopy(model)
    train(model, step=lambda live: average_into(teacher, live, 0.999, buffers=True))
    return {"model": model.state_dict(), "ema": teacher.state_dict()}


@fault("BN609", "ema.stem.1", cause="buffers-left-behind")
def an_average_over_parameters_of_a_trained_network():
    """The data of the fine-tune have another scale, and the copy's buffers stay as they were."""
    model = trained()
    teacher = copy.deepcopy(model)
    train(model, transform=lambda x: 3 * x + 2, step=lambda live: average_into(teacher, live))
    return {"model": model.state_dict(), "ema": teacher.state_dict()}


@fault("BN610", "student.stem.1", "student.layer2.0.bn2", cause="shared-storage")
def a_module_in_two_places():
    model = trained()
    return nn.ModuleDict({"student": model, "probe": model}).state_dict()
