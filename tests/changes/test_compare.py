"""Two files of one network under other names, in other containers, of other parts; real files."""

from __future__ import annotations

import contextlib
import itertools
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bncli.changes.compare import compare
from bncli.loaders import open_file
from bncli.model.changes import How, Same, State
from bncli.report import Certainty, Severity
from bncli.rulebook.change_findings import change_findings
from bncli.rulebook.changes import Expectation, Expected
from tests.changes.causes import all_fused
from tests.changes.containers import saved
from tests.changes.ports import PORTS, leaves, renamed, transposed
from tests.changes.test_states_caused import by_name, compared
from tests.changes.trainings import BEFORE, LAYERS, MORE, halved, state_of, trained, trained_on

SHARED = Path(__file__).parents[2].parent / "shared"
CASES = Path(os.environ.get("BNCLI_CASES") or SHARED / "cases")
CORPUS = Path(os.environ.get("BNCLI_CORPUS") or SHARED / "corpus")

# Names of other frameworks, which keep no counter.

KERAS = leaves("gamma", "beta", "moving_mean", "moving_variance")


def port_file(folder, port, state):
    path = folder / f"{port}.npz"
    np.savez(path, **PORTS[port](state))
    return open_file(path)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("port", PORTS)
def test_a_port_is_identical(port, reverse, tmp_path):
    torch_file = open_file(saved(tmp_path / "net.pt", state_of(trained())))
    files = [torch_file, port_file(tmp_path, port, state_of(trained()))]
    comparison = compare(*files[:: -1 if reverse else 1])
    assert len(comparison.layers) == len(LAYERS)
    for layer in comparison.layers:
        assert layer.found.state is State.IDENTICAL, layer
        assert layer.how in {How.NAME, How.NAMING}
        assert layer.before is not Same.MOVED
        ours, theirs = layer.name, layer.other_name
        plain, other = (theirs, ours) if reverse else (ours, theirs)
        assert plain in LAYERS
        assert other.replace("/", ".").replace("_", ".") == plain
    assert comparison.related is not False


@pytest.mark.parametrize("port", PORTS)
def test_a_port_in_float16_is_rounded(port, tmp_path):
    torch_file = open_file(saved(tmp_path / "net.pt", state_of(trained())))
    comparison = compare(torch_file, port_file(tmp_path, port, halved(state_of(trained()))))
    assert {layer.found.state for layer in comparison.layers} == {State.ROUNDED}


@pytest.mark.parametrize("port", PORTS)
def test_a_port_of_another_time_was_trained_on(port, tmp_path):
    torch_file = open_file(saved(tmp_path / "net.pt", state_of(trained())))
    comparison = compare(torch_file, port_file(tmp_path, port, state_of(trained_on())))
    assert {layer.found.state for layer in comparison.layers} == {State.TRAINED}
    assert {layer.measures.batches for layer in comparison.layers} == {None}


@pytest.mark.parametrize("port", ["keras", "paddle"])
def test_one_layer_of_a_port_with_its_statistics_swapped(port, tmp_path):
    state = state_of(trained())
    mean, var = "layer1.0.bn2.running_mean", "layer1.0.bn2.running_var"
    torch_file = open_file(saved(tmp_path / "net.pt", state))
    comparison = compare(
        torch_file, port_file(tmp_path, port, state | {mean: state[var], var: state[mean]})
    )
    states = {layer.name: layer.found.state for layer in comparison.layers}
    assert states == dict.fromkeys(LAYERS, State.IDENTICAL) | {"layer1.0.bn2": State.CONVENTION}


def numbered(state, *, exchanged=(), order=None):
    """A network as Keras numbers its layers; the statistics of two may stand under each other."""
    arrays = {}
    names = list(LAYERS if order is None else order)
    held = dict(zip(exchanged, exchanged[::-1], strict=True))
    for at, layer in enumerate(names):
        number = f"_{at}" if at else ""
        weight = state[f"{BEFORE[layer]}.weight"]
        arrays[f"conv2d{number}/kernel:0"] = transposed(weight).contiguous().numpy()
        if f"{BEFORE[layer]}.bias" in state:
            arrays[f"conv2d{number}/bias:0"] = state[f"{BEFORE[layer]}.bias"].numpy()
        source = held.get(layer, layer)
        fresh = {"weight": torch.ones(len(weight)), "bias": torch.zeros(len(weight))}
        for leaf, own in KERAS.items():
            values = state.get(f"{source}.{leaf}", fresh.get(leaf))
            arrays[f"batch_normalization{number}/{own}:0"] = values.numpy()
    return arrays


def numbered_file(folder, state, **how):
    np.savez(folder / "numbered.npz", **numbered(state, **how))
    return open_file(folder / "numbered.npz")


@pytest.mark.parametrize("reverse", [False, True])
def test_layers_exchanged_in_a_file_of_other_names(reverse, tmp_path):
    both = "layer1.0.bn2", "bn1"
    files = [
        open_file(saved(tmp_path / "net.pt", state_of(trained()))),
        numbered_file(tmp_path, state_of(trained()), exchanged=both),
    ]
    comparison = compare(*files[:: -1 if reverse else 1])
    at = [LAYERS.index(name) for name in both]
    states = [layer.found.state for layer in comparison.layers]
    assert [i for i, state in enumerate(states) if state is State.ORDER] == sorted(at)
    assert {states[i] for i in range(len(LAYERS)) if i not in at} == {State.IDENTICAL}
    causes = {layer.found.numbers["cause"] for layer in comparison.layers}
    assert causes == {"identical", "exchanged"}


def test_a_file_of_other_names_and_another_order_is_not_blamed(tmp_path):
    order = [*LAYERS[5:], *LAYERS[:5]]
    other = numbered_file(tmp_path, state_of(trained()), order=order)
    comparison = compare(open_file(saved(tmp_path / "net.pt", state_of(trained()))), other)
    assert {layer.found.state for layer in comparison.layers} == {State.IDENTICAL}
    assert {layer.before for layer in comparison.layers} == {Same.SAME}
    assert all(layer.out_of_order for layer in comparison.layers)


# Wrappers, other names, and parts of a model.


def prefixed(prefix):
    return lambda state: {f"{prefix}{name}": value for name, value in state.items()}


WRAPPERS = {
    "module.": prefixed("module."),
    "_orig_mod.": prefixed("_orig_mod."),
    "_orig_mod.module.": prefixed("_orig_mod.module."),
    "model.": prefixed("model."),
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {}},
    "lightning": lambda state: {"state_dict": prefixed("model.")(state), "epoch": 3},
    "parallel in a dictionary": lambda state: {"model_state": prefixed("module.")(state)},
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_does_not_matter(wrapper, reverse, tmp_path):
    paths = [tmp_path / "plain.pt", tmp_path / "wrapped.pt"]
    torch.save(state_of(trained()), paths[0])
    torch.save(WRAPPERS[wrapper](state_of(trained_on())), paths[1])
    comparison = compare(*(open_file(path) for path in paths[:: -1 if reverse else 1]))
    assert len(comparison.layers) == len(LAYERS)
    for layer in comparison.layers:
        assert (layer.how, layer.sure) == (How.NAME, Certainty.CERTAIN)
        names = (layer.name, layer.other_name)[:: -1 if reverse else 1]
        assert names[1].endswith(names[0])
        assert layer.measures.batches == (-MORE if reverse else MORE)
        if not reverse:
            assert layer.found.state is State.TRAINED


def test_two_wrappers_of_one_network(tmp_path):
    states = [state_of(trained()), state_of(trained_on())]
    for number, (state, wrapper) in enumerate(zip(states, ("module.", "lightning"), strict=True)):
        torch.save(WRAPPERS[wrapper](state), tmp_path / f"{number}.pt")
    comparison = compare(*(open_file(tmp_path / f"{number}.pt") for number in range(2)))
    assert {layer.how for layer in comparison.layers} == {How.NAME}
    assert {layer.found.state for layer in comparison.layers} == {State.TRAINED}


@pytest.mark.parametrize("on", [False, True])
def test_other_names_are_matched_by_shape_and_order(on, tmp_path):
    first = state_of(trained())
    second, new = renamed(state_of(trained_on() if on else trained()))
    comparison = compared(tmp_path, first, second)
    assert {layer.name: layer.other_name for layer in comparison.layers} == {
        name: new[name] for name in LAYERS
    }
    assert {layer.how for layer in comparison.layers} == {How.ORDER if on else How.VALUES}
    expected = State.TRAINED if on else State.IDENTICAL
    assert {layer.found.state for layer in comparison.layers} == {expected}


def test_what_follows_from_a_likely_match_is_likely(tmp_path):
    second, _ = renamed(state_of(trained()))
    for seed, values in enumerate(second.values()):
        if values.ndim > 1:  # as of another network
            values.normal_(generator=torch.Generator().manual_seed(seed))
        elif values.ndim:
            values.add_(0.1)
    comparison = compared(tmp_path, state_of(trained()), second)
    assert {layer.found.certainty for layer in comparison.layers} == {Certainty.LIKELY}
    assert comparison.related is False
    assert {each.certainty for each in change_findings(comparison)} == {Certainty.LIKELY}


@pytest.mark.parametrize("prefix", ["", "backbone.", "encoder.module."])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_backbone_alone_and_the_whole(prefix, reverse, tmp_path):
    whole = state_of(trained_on())
    alone = {
        f"{prefix}{name}": value
        for name, value in state_of(trained()).items()
        if not name.startswith(("neck", "head", "fc"))
    }
    states = [alone, whole][:: -1 if reverse else 1]
    comparison = compared(tmp_path, *states)
    layers = by_name(comparison)
    heads = {"neck.1", "neck.4", "head.1"}
    assert len(comparison.matched) == len(LAYERS) - len(heads)
    assert {name for name, layer in layers.items() if layer.how is None} == heads
    for layer in comparison.matched:
        assert layer.name.removeprefix(prefix) == layer.other_name.removeprefix(prefix)
        if not reverse:
            assert layer.found.state is State.TRAINED
            assert layer.measures.batches == MORE
    if reverse:
        assert {layer.name for layer in comparison.layers if layer.how is None} == heads
    else:
        assert {layer.other_name for layer in comparison.layers if layer.how is None} == heads


def test_parts_of_a_file_with_two_copies(tmp_path):
    path = tmp_path / "both.pt"
    torch.save({"live": state_of(trained_on()), "ema": state_of(trained())}, path)
    file = open_file(path)
    comparison = compare(file, file, ("ema", "live"))
    assert (comparison.part, comparison.other_part) == ("ema", "live")
    assert [layer.name for layer in comparison.layers] == [f"ema.{name}" for name in LAYERS]
    assert [layer.other_name for layer in comparison.layers] == [f"live.{name}" for name in LAYERS]
    assert {layer.found.state for layer in comparison.layers} == {State.TRAINED}
    assert {layer.measures.batches for layer in comparison.layers} == {MORE}


def test_a_layer_outside_a_part_is_of_no_file_rather_than_lost(tmp_path):
    file = open_file(saved(tmp_path / "net.pt", state_of(trained())))
    for part in ("layer1", "layer2"):
        comparison = compare(file, file, ("", part))
        matched = {layer.name for layer in comparison.matched}
        assert matched == {name for name in LAYERS if name.startswith(part)}
        causes = {layer.found.numbers["cause"] for layer in comparison.layers if not layer.how}
        assert causes == {"alone"}


def test_a_layer_whose_counter_alone_fell_was_not_trained_on(tmp_path):
    second = state_of(trained_on())
    second["layer1.0.bn1.num_batches_tracked"] -= MORE + 20
    layers = by_name(compared(tmp_path, state_of(trained()), second))
    fell = layers.pop("layer1.0.bn1").found
    assert (fell.state, fell.numbers["cause"]) == (State.DIFFERENT, "counter-fell")
    assert {layer.found.state for layer in layers.values()} == {State.TRAINED}


def test_a_new_classifier_and_the_rest_as_it_was(tmp_path):
    first = state_of(trained())
    second = first | {"fc.weight": torch.ones(9, 14), "fc.bias": torch.zeros(9)}
    comparison = compare(
        *(
            open_file(saved(tmp_path / f"{number}.pt", state))
            for number, state in enumerate((first, second))
        ),
        weights=True,
    )
    assert {layer.found.state for layer in comparison.layers} == {State.IDENTICAL}
    assert comparison.others is not None
    assert (comparison.others.same, comparison.others.rounded) == (0, 0)
    assert comparison.others.moved == ("fc.weight", "fc.bias")


# Published checkpoints: four face detectors of one architecture.

DETECTORS = {
    "first epoch": "ultra-light-fd-series/RFB-Epoch-000.pth",
    "epoch 500": "ultra-light-fd-series/RFB-Epoch-499.pth",
    "RFB-320": "ultra-light-fd/version-RFB-320.pth",
    "masked": "ultra-light-fd/RFB-320-masked_face-v2.pth",
}
COUNTERS = {"first epoch": 80, "epoch 500": 40000, "RFB-320": 86296, "masked": 254016}
"""Batches that each has seen. The first two are of one run, at 80 batches an epoch."""

corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"there is no {CORPUS}")


@corpus
@pytest.mark.corpus
@pytest.mark.parametrize(("one", "other"), [*itertools.combinations(DETECTORS, 2)])
def test_published_detectors(one, other):
    comparison = compare(*(open_file(CORPUS / DETECTORS[name]) for name in (one, other)))
    series = (one, other) == ("first epoch", "epoch 500")
    assert comparison.related is series
    assert len(comparison.layers) == 35
    expected = State.TRAINED if series else State.DIFFERENT
    assert {layer.found.state for layer in comparison.layers} == {expected}
    assert {layer.how for layer in comparison.layers} == {How.NAME}
    batches = COUNTERS[other] - COUNTERS[one]
    assert {layer.measures.batches for layer in comparison.layers} == {batches}
    assert {layer.before for layer in comparison.layers} == {Same.MOVED}


@corpus
@pytest.mark.corpus
@pytest.mark.parametrize("name", DETECTORS)
def test_a_published_detector_is_itself(name):
    comparison = compare(*[open_file(CORPUS / DETECTORS[name])] * 2)
    assert {layer.found.state for layer in comparison.layers} == {State.IDENTICAL}
    assert len(comparison.layers) == 35


# Faults that people reported in public, made again.

cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"there is no {CASES}")


@pytest.fixture
def case(folder, monkeypatch):
    """Makes the files of a case in the current folder."""

    def make(name):
        monkeypatch.setattr(sys, "argv", ["make.py", str(folder)])
        here = Path.cwd()
        with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(sys.stderr):
            runpy.run_path(str(CASES / name / "make.py"), run_name="__main__")
        os.chdir(here)

    return make


@cases
@pytest.mark.parametrize("reverse", [False, True])
def test_a_consolidation_that_dropped_the_buffers(case, reverse):
    case("01_deepspeed1101")
    files = [open_file(name) for name in ("pytorch_model.bin", "fp16_consolidated.bin")]
    comparison = compare(*files[:: -1 if reverse else 1])
    assert [layer.name for layer in comparison.layers] == ["1", "4"]
    for layer in comparison.layers:
        assert layer.found.state is State.LOST
        assert layer.found.numbers["missing"] == [
            "running_mean",
            "running_var",
            "num_batches_tracked",
        ]
        assert layer.found.numbers["missing_in"] == ("second" if reverse else "first")
        assert layer.how is How.NAME


@cases
def test_ranks_that_counted_for_themselves(case):
    case("27_pytorch22192")
    comparison = compare(open_file("rank0.pt"), open_file("rank1.pt"))
    (layer,) = comparison.layers
    assert layer.found.state is State.CONVENTION
    assert layer.measures.batches == 0
    # 18 values a channel on the one rank and 50 on the other.
    ratio = (18 / 17) / (50 / 49)
    assert layer.measures.var_ratio_max == pytest.approx(1 / ratio, rel=1e-4)


@cases
def test_training_that_went_on_under_old_statistics(case):
    case("35_executorch21056")
    comparison = compare(open_file("pretrained.pt"), open_file("qat.pt"))
    assert [layer.name for layer in comparison.layers] == ["1", "4"]
    for layer in comparison.layers:
        assert layer.found.state is State.WEIGHTS
        assert layer.found.numbers["cause"] == "own"
        assert layer.measures.batches == 0
        assert layer.before is Same.MOVED


# Layers that vanished, with the convolution before them still there.


def without(state, *layers):
    """A state without the tensors of some layers."""
    begins = tuple(f"{layer}." for layer in layers)
    return {name: values for name, values in state.items() if not name.startswith(begins)}


def lost_in(comparison):
    """The layers that are lost, with the cause and the severity of their finding."""
    findings = {finding.subject: finding.severity for finding in change_findings(comparison)}
    return {
        layer.name or layer.other_name: (layer.found.numbers["cause"], findings.get(layer.name))
        for layer in comparison.layers
        if layer.found.state is State.LOST
    }


def test_a_layer_that_is_neither_kept_nor_folded(tmp_path):
    second = state_of(all_fused())
    second["layer2.0.conv2.weight"] = second["layer2.0.conv2.weight"] * 1.5  # wrong by a factor
    comparison = compared(tmp_path, state_of(trained()), second)
    assert lost_in(comparison) == {"layer2.0.bn2": ("not-folded", Severity.WARNING)}
    others = {layer.found.state for layer in comparison.layers if layer.name != "layer2.0.bn2"}
    assert others == {State.FOLDED}


@pytest.mark.parametrize("on", [False, True])
def test_a_layer_that_vanished_while_the_others_stayed(on, tmp_path):
    second = without(state_of(trained_on() if on else trained()), "layer2.0.bn2")
    comparison = compared(tmp_path, state_of(trained()), second)
    cause = "not-folded" if on else "gone"
    assert lost_in(comparison) == {"layer2.0.bn2": (cause, Severity.WARNING)}


def test_layers_that_are_all_gone_and_not_folded(tmp_path):
    second = state_of(all_fused())
    for name in BEFORE.values():  # as 8 bits hold it
        step = second[f"{name}.weight"].abs().max() / 127
        second[f"{name}.weight"] = (second[f"{name}.weight"] / step).round() * step
    comparison = compared(tmp_path, state_of(trained()), second)
    assert lost_in(comparison) == dict.fromkeys(LAYERS, ("not-folded", Severity.WARNING))
    unmet = change_findings(comparison, [Expectation(Expected.FOLDED, lambda _: True)])
    assert {finding.code for finding in unmet} == {"BN620"}


def test_layers_that_were_added_are_not_lost(tmp_path):
    first = without(state_of(trained()), *LAYERS)
    comparison = compared(tmp_path, first, state_of(trained_on()))
    assert set(lost_in(comparison).values()) == {("alone", None)}
    folded = compared(tmp_path, state_of(all_fused()), without(state_of(trained_on()), "fc"))
    assert State.FOLDED not in {layer.found.state for layer in folded.layers}


def chain(state, by):
    """A state whose layers have moved by some places, with their convolutions."""
    count = len({name.split(".")[0] for name in state})
    return {
        f"b{(int(name.split('.')[0][1:]) + by) % count}.{name.split('.', 1)[1]}": values
        for name, values in state.items()
    }


def test_layers_in_each_others_places_are_not_two_networks(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {}
    for at in range(6):
        state[f"b{at}.conv.weight"] = torch.randn(16, 16, 3, 3, generator=generator)
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state[f"b{at}.bn.{leaf}"] = torch.rand(16, generator=generator) + 0.5
        state[f"b{at}.bn.num_batches_tracked"] = torch.tensor(100)
    comparison = compared(tmp_path, state, chain(state, 1))
    assert {layer.found.state for layer in comparison.layers} == {State.ORDER}
    assert comparison.related is None


def test_a_part_that_was_exchanged_with_another_network(tmp_path):
    first = state_of(trained())
    second = state_of(trained_on())
    torch.manual_seed(5)
    name = "layer3.0.conv2"
    fresh = torch.randn_like(second[f"{name}.weight"]) * second[f"{name}.weight"].std()
    layers = by_name(compared(tmp_path, first, second | {f"{name}.weight": fresh}))
    found = layers["layer3.0.bn2"].found
    assert (found.state, found.numbers["cause"]) == (State.DIFFERENT, "unrelated-before")
    assert {layers[each].found.state for each in LAYERS if each != "layer3.0.bn2"} == {
        State.TRAINED
    }
