"""Each state of a layer, really caused, is named: alone and among layers that were trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bncli.changes.compare import compare
from bncli.loaders import open_file
from bncli.model.changes import Comparison, LayerVersion, State
from tests.changes.causes import all_fused
from tests.changes.containers import CONTAINERS, saved
from tests.changes.trainings import LAYERS, MORE, halved, state_of, trained, trained_but, trained_on
from tests.changes.versions import VERSIONS, states_of


def compared(folder, first, second, containers=("zip", "zip")) -> Comparison:
    files = [
        open_file(saved(folder / f"{number}.file", state, container))
        for number, (state, container) in enumerate(zip((first, second), containers, strict=True))
    ]
    return compare(*files)


def by_name(comparison: Comparison) -> dict[str, LayerVersion]:
    return {layer.name or layer.other_name: layer for layer in comparison.layers}


def check(version, among, dtype, containers, folder: Path):
    first, second = states_of(version, among)
    if dtype == "float16":
        first, second = halved(first), halved(second)
    comparison = compared(folder, first, second, containers)
    layers = by_name(comparison)
    assert sorted(layers) == sorted(LAYERS)
    expected = dict.fromkeys(LAYERS, State.TRAINED if among else State.IDENTICAL)
    expected.update(version.states)
    assert {name: layer.found.state for name, layer in layers.items()} == expected
    for name, layer in layers.items():
        assert (layer.how is not None) is (version.partner or name not in version.states)
        if layer.found.state is State.TRAINED:
            assert layer.measures.batches == MORE
    return layers[version.layer]


def shows(layer: LayerVersion, version, dtype):
    """The numbers that a version has, up to what the dtype keeps of them."""
    numbers = layer.found.numbers
    for name, value in version.numbers.items():
        if name == "n" and dtype == "float16":
            assert numbers["n_min"] <= value <= numbers["n_max"]
            assert numbers["n_max"] < 1.3 * numbers["n_min"]
        elif name == "eps" and dtype == "float16" and "eps_fits" in numbers:
            assert value in numbers["eps_fits"]
        elif isinstance(value, float):
            assert numbers[name] == pytest.approx(value, rel=2e-6 if dtype == "float32" else 1e-3)
        else:
            assert numbers[name] == value, numbers


MATRIX = [
    pytest.param(
        version,
        among,
        dtype,
        (CONTAINERS[(at + among) % 4], CONTAINERS[(at + 2 * (dtype == "float16")) % 4]),
        id=f"{version}-{'among' if among else 'alone'}-{dtype}",
        marks=() if among or dtype == "float32" else pytest.mark.exhaustive,
    )
    for at, version in enumerate(VERSIONS)
    for among in (False, True)
    for dtype in ("float32", "float16")
    if dtype == "float32" or version.halves
]


@pytest.mark.parametrize(("version", "among", "dtype", "containers"), MATRIX)
def test_what_happened_to_a_layer_is_named(version, among, dtype, containers, tmp_path):
    shows(check(version, among, dtype, containers, tmp_path), version, dtype)


@pytest.mark.exhaustive
@pytest.mark.parametrize("containers", [(one, two) for one in CONTAINERS for two in CONTAINERS])
@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_in_every_pair_of_containers(version, containers, tmp_path):
    shows(check(version, True, "float32", containers, tmp_path), version, "float32")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("half", [False, True])
def test_a_copy_is_identical(container, half, tmp_path):
    state = halved(state_of(trained())) if half else state_of(trained())
    comparison = compared(tmp_path, state, state, ("zip", container))
    assert {layer.found.state for layer in comparison.layers} == {State.IDENTICAL}
    assert [layer.name for layer in comparison.layers] == list(LAYERS)
    assert {layer.measures.batches for layer in comparison.layers} == {0}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("trip", [False, True])
@pytest.mark.parametrize("order", [1, -1])
def test_a_copy_in_fewer_digits_is_rounded(dtype, trip, order, tmp_path):
    first = state_of(trained())
    second = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in first.items()
    }
    if trip:
        second = {
            name: value.float() if value.is_floating_point() else value
            for name, value in second.items()
        }
    comparison = compared(tmp_path, *(first, second)[::order])
    assert {layer.found.state for layer in comparison.layers} == {State.ROUNDED}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("among", [False, True])
def test_one_layer_rounded(dtype, among, tmp_path):
    layer = "layer3.0.bn2"
    first = state_of(trained())
    second = state_of(trained_but(layer) if among else trained())
    for name in ("weight", "bias", "running_mean", "running_var"):
        second[f"{layer}.{name}"] = second[f"{layer}.{name}"].to(dtype).float()
    layers = by_name(compared(tmp_path, first, second))
    others = State.TRAINED if among else State.IDENTICAL
    expected = dict.fromkeys(LAYERS, others) | {layer: State.ROUNDED}
    assert {name: each.found.state for name, each in layers.items()} == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_training_on_in_fewer_digits_is_training_on(dtype, tmp_path):
    second = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in state_of(trained_on()).items()
    }
    comparison = compared(tmp_path, state_of(trained()), second)
    assert {layer.found.state for layer in comparison.layers} == {State.TRAINED}
    assert {layer.measures.batches for layer in comparison.layers} == {MORE}


@pytest.mark.parametrize("among", [False, True])
def test_a_variance_too_large_for_float16(among, tmp_path):
    layer, scale = "layer2.0.bn1", 400.0
    states = []
    for model in (trained(), trained_but(layer) if among else trained()):
        state = state_of(model)  # the convolution is larger by 400, and what it gives
        state["layer2.0.conv1.weight"] *= scale
        state[f"{layer}.running_mean"] *= scale
        state[f"{layer}.running_var"] *= scale**2
        states.append(state)
    layers = by_name(compared(tmp_path, states[0], halved(states[1])))
    assert layers[layer].found.state is State.IMPOSSIBLE
    assert layers[layer].found.numbers["cause"] == "overflow"
    others = {layers[name].found.state for name in LAYERS if name != layer}
    assert others == {State.TRAINED if among else State.ROUNDED}


@pytest.mark.parametrize("half", [False, True])
def test_a_whole_network_folded_by_torch(half, tmp_path):
    first, second = state_of(trained()), state_of(all_fused())
    if half:
        second = halved(second)
    comparison = compared(tmp_path, first, second)
    assert [layer.name for layer in comparison.layers] == list(LAYERS)
    assert {layer.found.state for layer in comparison.layers} == {State.FOLDED}
    for layer in comparison.layers:
        assert layer.how is None
        assert layer.found.numbers.get("fault") is None


def test_all_buffers_dropped(tmp_path):
    first = state_of(trained())
    second = dict(trained().named_parameters())
    second = {name: value.detach().clone() for name, value in second.items()}
    comparison = compared(tmp_path, first, second)
    states = {layer.name: layer.found.state for layer in comparison.layers}
    assert states == dict.fromkeys(LAYERS, State.LOST)


def test_numbers_of_a_layer_that_was_trained_on(tmp_path):
    first, second = trained(), trained_on()
    layers = by_name(compared(tmp_path, state_of(first), state_of(second)))
    for name in LAYERS:
        a, b = first.get_submodule(name), second.get_submodule(name)
        mean, var = (a.running_mean.double(), a.running_var.double() + 1e-5)
        new_mean, new_var = (b.running_mean.double(), b.running_var.double() + 1e-5)
        z = ((new_mean - mean).abs() / var.sqrt()).max().item()
        measures = layers[name].measures
        assert measures.z_max == pytest.approx(z, rel=1e-9)
        assert measures.var_ratio_min == pytest.approx((new_var / var).min().item(), rel=1e-9)
        assert measures.var_ratio_max == pytest.approx((new_var / var).max().item(), rel=1e-9)
        assert measures.batches == MORE
        # What changes in an output whose input has the first's statistics.
        weight = torch.ones_like(mean) if b.weight is None else b.weight.detach().double()
        shift = (mean - new_mean) / new_var.sqrt()
        stretch = (var / new_var).sqrt() - 1
        effect = weight.abs() * torch.hypot(shift, stretch)
        assert measures.effect == pytest.approx(effect.max().item(), rel=1e-9)
        assert measures.worst == effect.argmax().item()
