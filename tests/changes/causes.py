"""What happens to a BatchNorm layer between two files: in training, or by an edit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from tests.changes.trainings import (
    BEFORE,
    TRAINED,
    Net,
    batches,
    freeze,
    state_of,
    train,
    trained,
    trained_but,
    trained_on,
)

Tensors = dict[str, torch.Tensor]
VECTORS = ("weight", "bias", "running_mean", "running_var")

Making = Callable[[bool], tuple[Tensors, Tensors]]


def edited(
    change: Callable[[Tensors], None], *layers: str, first: Callable[[Tensors], None] | None = None
) -> Making:
    """Layers that no training touches are changed in the second file (and in the first)."""

    def make(among: bool) -> tuple[Tensors, Tensors]:
        before = state_of(trained())
        after = state_of(trained_but(*layers) if among else trained())
        if first is not None:
            first(before)
        change(after)
        return before, after

    return make


def by_training(
    prepare: Callable[[Net], None], then: Callable[[Net], None] | None = None
) -> Making:
    """Training as `prepare` sets it up; alone, everything else is frozen."""

    def make(among: bool) -> tuple[Tensors, Tensors]:
        before = trained()
        model = trained()
        if not among:
            freeze(model)
        prepare(model)
        train(model)
        if then is not None:
            then(model)
        return state_of(before), state_of(model)

    return make


def zeros_before(layer: str) -> Making:
    """A frozen layer in train() behind a convolution that was pruned: what it takes in is 0."""

    def make(among: bool) -> tuple[Tensors, Tensors]:
        model = trained()
        nn.init.zeros_(model.get_submodule(BEFORE[layer]).weight)
        before = state_of(model)
        if not among:
            freeze(model)
        frozen_in_train(layer)(model)
        train(model)
        return before, state_of(model)

    return make


def other_range(layer: str) -> Making:
    """A frozen layer in train() takes in images that were not divided by 64."""

    def make(among: bool) -> tuple[Tensors, Tensors]:
        model = trained_but(layer) if among else trained()
        model.eval().requires_grad_(requires_grad=False)
        model.get_submodule(layer).train()
        for x, _ in batches(100, seed=3):
            model(64 * x)
        return state_of(trained()), state_of(model)

    return make


def parts(model: nn.Module, layer: str) -> tuple[Any, Any]:
    """A layer and what is in front of it."""
    return model.get_submodule(layer), model.get_submodule(BEFORE[layer])


# Training, and what is set up wrongly for it.


def trains(layer: str) -> Callable[[Net], None]:
    """The layer and its convolution train, as they should."""

    def prepare(model: Net) -> None:
        for part in parts(model, layer):
            part.requires_grad_(requires_grad=True).train()

    return prepare


def frozen_in_train(layer: str, *, convolution: bool = True) -> Callable[[Net], None]:
    """requires_grad=False without eval(): of the layer, and of the convolution if asked for."""

    def prepare(model: Net) -> None:
        bn, before = parts(model, layer)
        bn.requires_grad_(requires_grad=False).train()
        if convolution:
            before.requires_grad_(requires_grad=False)

    return prepare


def momentum_0(layer: str) -> Callable[[Net], None]:
    """Training in which nothing is written to the statistics; the counter counts."""

    def prepare(model: Net) -> None:
        trains(layer)(model)
        model.get_submodule(layer).momentum = 0.0

    return prepare


def in_eval(layer: str, *, own: bool = True, convolution: bool = True) -> Callable[[Net], None]:
    """The layer normalises with its statistics, and an optimiser moves its weight and bias."""

    def prepare(model: Net) -> None:
        bn, before = parts(model, layer)
        bn.requires_grad_(requires_grad=own).eval()
        before.requires_grad_(requires_grad=convolution)

    return prepare


def counter_back(layer: str) -> Callable[[Net], None]:
    """The counter is put back, as by those who keep the statistics."""

    def then(model: Net) -> None:
        model.get_submodule(layer).num_batches_tracked.fill_(TRAINED)

    return then


def resets(layer: str) -> Callable[[Net], None]:
    return lambda model: model.get_submodule(layer).reset_running_stats()


def sees_nan(layer: str) -> Callable[[Net], None]:
    """The layer alone takes a batch in that has a NaN in one channel."""

    def then(model: Net) -> None:
        model.eval()
        bn = model.get_submodule(layer).train()

        def spoil(module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            x = inputs[0].clone()
            x[0, 2] = torch.nan
            return (x,)

        handle = bn.register_forward_pre_hook(spoil)
        with torch.no_grad():
            model(next(iter(batches(1)))[0])
        handle.remove()

    return then


# What scripts and converters do to the tensors of a layer.


def vectors(
    layer: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[Tensors], None]:
    """Change all vectors of a layer alike."""

    def edit(state: Tensors) -> None:
        for name in VECTORS:
            if f"{layer}.{name}" in state:
                state[f"{layer}.{name}"] = change(state[f"{layer}.{name}"]).clone()

    return edit


def variance(
    layer: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[Tensors], None]:
    def edit(state: Tensors) -> None:
        state[f"{layer}.running_var"] = change(state[f"{layer}.running_var"]).clone()

    return edit


def statistics(
    layer: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[Tensors], None]:
    def edit(state: Tensors) -> None:
        for name in ("running_mean", "running_var"):
            state[f"{layer}.{name}"] = change(state[f"{layer}.{name}"]).clone()

    return edit


def swap_statistics(layer: str) -> Callable[[Tensors], None]:
    def edit(state: Tensors) -> None:
        mean, var = f"{layer}.running_mean", f"{layer}.running_var"
        state[mean], state[var] = state[var], state[mean]

    return edit


def set_counter(layer: str, value: int) -> Callable[[Tensors], None]:
    return lambda state: state.update({f"{layer}.num_batches_tracked": torch.tensor(value)})


def drop(layer: str, *names: str) -> Callable[[Tensors], None]:
    """Leave tensors of a layer out; without names all of them."""

    def edit(state: Tensors) -> None:
        for name in names or (*VECTORS, "num_batches_tracked"):
            state.pop(f"{layer}.{name}", None)

    return edit


BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def initial(layer: str) -> Callable[[Tensors], None]:
    """The layer as a new one: load_state_dict(strict=False) found none of its names."""

    def edit(state: Tensors) -> None:
        for name in VECTORS:
            value = state[f"{layer}.{name}"]
            state[f"{layer}.{name}"] = torch.full_like(
                value, float(name in {"weight", "running_var"})
            )
        state[f"{layer}.num_batches_tracked"] = torch.tensor(0)

    return edit


def copied(source: str, target: str) -> Callable[[Tensors], None]:
    """A layer is given another's tensors."""

    def edit(state: Tensors) -> None:
        for name in (*VECTORS, "num_batches_tracked"):
            state[f"{target}.{name}"] = state[f"{source}.{name}"].clone()

    return edit


def exchanged(one: str, other: str) -> Callable[[Tensors], None]:
    def edit(state: Tensors) -> None:
        for name in (*VECTORS, "num_batches_tracked"):
            ours, theirs = f"{one}.{name}", f"{other}.{name}"
            state[ours], state[theirs] = state[theirs], state[ours]

    return edit


def permuted_with_convolution(layer: str, order: torch.Tensor) -> Callable[[Tensors], None]:
    def edit(state: Tensors) -> None:
        vectors(layer, lambda values: values[order])(state)
        weight = f"{BEFORE[layer]}.weight"
        state[weight] = state[weight][order].clone()

    return edit


def extrapolated(layer: str) -> Callable[[Tensors], None]:
    """An average with a negative weight of the newer, as far as some variances below 0."""

    def edit(state: Tensors) -> None:
        older = {name: state[f"{layer}.{name}"] for name in ("running_mean", "running_var")}
        newer = trained_on().get_submodule(layer)
        most = (newer.running_var / older["running_var"]).max()
        assert most > 1
        share = 1.1 / (most - 1)
        for name, values in older.items():
            state[f"{layer}.{name}"] = (1 + share) * values - share * getattr(newer, name)

    return edit


def other_networks(layer: str) -> Callable[[Tensors], None]:
    """The layer and its convolution are those of a network that was trained apart."""
    apart = state_of(trained(1))

    def edit(state: Tensors) -> None:
        for prefix in (layer, BEFORE[layer]):
            names = [name for name in state if name.rpartition(".")[0] == prefix]
            state.update({name: apart[name].clone() for name in names})

    return edit


def averaged(layer: str, *, unbiased: bool) -> Callable[[Tensors], None]:
    """Statistics as the average over some batches, of one convention for the variance."""
    model = trained().eval()
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    with torch.no_grad():
        for x, _ in batches(30, 8, seed=5):
            model(x)
    handle.remove()
    axes = [0, *range(2, seen[0].ndim)]
    mean = torch.stack([x.mean(axes) for x in seen]).mean(0)
    var = torch.stack([x.var(axes, unbiased=unbiased) for x in seen]).mean(0)

    def edit(state: Tensors) -> None:
        state[f"{layer}.running_mean"] = mean.clone()
        state[f"{layer}.running_var"] = var.clone()
        state[f"{layer}.num_batches_tracked"] = torch.tensor(30)

    return edit


# Folding, right and wrong.


def fused(before: nn.Module, bn: nn.Module) -> nn.Module:
    """The convolution or linear layer that does what the two did."""
    fuse = fuse_linear_bn_eval if isinstance(before, nn.Linear) else fuse_conv_bn_eval
    return fuse(before.eval(), bn.eval())


def scale_of(state: Tensors, layer: str, eps: float = 1e-5) -> tuple[torch.Tensor, torch.Tensor]:
    """What a layer multiplies by and adds."""
    mean, var = state[f"{layer}.running_mean"], state[f"{layer}.running_var"]
    weight = state.get(f"{layer}.weight", torch.ones_like(mean))
    bias = state.get(f"{layer}.bias", torch.zeros_like(mean))
    scale = weight / torch.sqrt(var + eps)
    return scale, bias - mean * scale


def folded(
    layer: str,
    *,
    eps: float = 1e-5,
    bias_scaled: bool = True,
    mean_folded: bool = True,
    keep: bool = False,
) -> Callable[[Tensors], None]:
    """The layer is written into the convolution in front of it, perhaps with a mistake."""

    def edit(state: Tensors) -> None:
        scale, offset = scale_of(state, layer, eps)
        if not mean_folded:
            offset = state[f"{layer}.bias"]
        name = BEFORE[layer]
        weight = state[f"{name}.weight"]
        state[f"{name}.weight"] = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        own = state.get(f"{name}.bias", torch.zeros_like(scale))
        state[f"{name}.bias"] = offset + (own * scale if bias_scaled else own)
        if not keep:
            drop(layer)(state)

    return edit


def fused_by_torch(layer: str) -> Making:
    """torch.nn.utils.fusion; the layer becomes nn.Identity."""

    def make(among: bool) -> tuple[Tensors, Tensors]:
        model = trained_but(layer) if among else trained()
        bn, before = parts(model, layer)
        model.set_submodule(BEFORE[layer], fused(before, bn))
        model.set_submodule(layer, nn.Identity())
        return state_of(trained()), state_of(model)

    return make


def all_fused() -> Net:
    """Every layer of `trained` folded by torch."""
    model = trained()
    for layer, name in BEFORE.items():
        model.set_submodule(name, fused(model.get_submodule(name), model.get_submodule(layer)))
        model.set_submodule(layer, nn.Identity())
    return model
