"""One layer under several names, by its storage, and layers that are only equal."""

import copy

import pytest
import safetensors.torch
import torch
from torch import nn

from tests.rulebook.networks import made, norms, residual, trained

LAYERS = len(norms(made(residual)))


def inspected(run, *flags):
    return run("inspect-checkpoint", "net.pt", *flags, "-f", "json")


def shared():
    model = trained()
    return nn.ModuleDict({"a": model, "b": model})


def whole():
    torch.save(shared(), "net.pt")


def state_dict():
    torch.save(shared().state_dict(), "net.pt")


def legacy():
    torch.save(shared().state_dict(), "net.pt", _use_new_zipfile_serialization=False)


def views():
    """Every tensor a view of one storage, as flattened parameters are."""
    state = shared()["a"].state_dict()
    floats = {name: value for name, value in state.items() if value.is_floating_point()}
    flat = torch.cat([value.reshape(-1) for value in floats.values()])
    parts = flat.split([value.numel() for value in floats.values()])
    state |= {n: part.view_as(floats[n]) for n, part in zip(floats, parts, strict=True)}
    torch.save({"a": state, "b": dict(state)}, "net.pt")


@pytest.mark.parametrize("write", [whole, state_dict, legacy, views])
def test_a_shared_layer_is_one_layer_and_said_to_be(run, folder, write):
    write()
    result = inspected(run)
    report = result.report
    assert result.code == 0
    assert report["facts"]["layers"] == LAYERS
    assert report["facts"]["names"] == 2 * LAYERS
    assert len(report["tables"]["layers"]) == 2 * LAYERS
    assert report["facts"]["channels"] == sum(m.num_features for m in norms(trained()).values())
    assert report["facts"]["counters"] == f"{LAYERS} layers at 160"
    assert {f["code"] for f in report["findings"]} == {"BN610"}
    assert len(report["findings"]) == LAYERS
    for finding in report["findings"]:
        assert finding["severity"] == "info"
        first, second = finding["evidence"]["layers"]
        assert (first[0], second[0], first[1:]) == ("a", "b", second[1:])


def test_the_number_expected_is_that_of_layers_and_both_are_told(run, folder):
    state_dict()
    assert inspected(run, "--expect-layers", str(LAYERS)).code == 0
    result = inspected(run, "--expect-layers", str(2 * LAYERS))
    assert result.code == 1
    (finding,) = (f for f in result.report["findings"] if f["code"] == "BN607")
    evidence = finding["evidence"]
    assert (evidence["found"], evidence["names"]) == (LAYERS, 2 * LAYERS)
    assert f"{LAYERS} BatchNorm layers under {2 * LAYERS} names" in finding["message"]


def test_one_of_the_names_is_a_layer_like_any_other(run, folder):
    state_dict()
    facts = inspected(run, "--layer", "b.*").report["facts"]
    assert facts["layers"] == LAYERS
    assert "names" not in facts


def test_layers_that_are_only_equal_stay_two(run, folder):
    model = trained()
    torch.save(nn.ModuleDict({"a": model, "b": copy.deepcopy(model)}).state_dict(), "net.pt")
    report = inspected(run).report
    assert report["facts"]["layers"] == 2 * LAYERS
    assert {f["code"] for f in report["findings"]} == {"BN601"}


def test_safetensors_keeps_no_shared_storage(run, folder):
    state = {name: value.clone() for name, value in shared().state_dict().items()}
    safetensors.torch.save_file(state, "net.pt")
    report = inspected(run).report
    assert report["facts"]["layers"] == 2 * LAYERS
    assert {f["code"] for f in report["findings"]} == {"BN601"}


def test_a_third_equal_layer_is_equal_to_the_shared_one(run, folder):
    model = trained()
    modules = {"a": model, "b": model, "c": copy.deepcopy(model)}
    torch.save(nn.ModuleDict(modules).state_dict(), "net.pt")
    report = inspected(run).report
    assert report["facts"]["layers"] == 2 * LAYERS
    equal = [f["evidence"]["layers"] for f in report["findings"] if f["code"] == "BN601"]
    assert {name[0] for names in equal for name in names} == {"a", "c"}


def test_statistics_shared_under_weights_of_their_own_are_two_layers(run, folder):
    state = trained().state_dict()
    other = dict(state)
    for name in norms(trained()):
        other[f"{name}.weight"] = state[f"{name}.weight"].clone()
    torch.save({"a": state, "b": other}, "net.pt")
    report = inspected(run).report
    assert report["facts"]["layers"] == 2 * LAYERS
    assert {f["code"] for f in report["findings"]} == {"BN601"}


def test_a_fault_of_a_shared_layer_is_shown_under_the_name_that_is_asked_for(run, folder):
    module = shared()
    module["a"].stem[1].running_var[2] = -1
    torch.save(module.state_dict(), "net.pt")
    for name in ("a", "b"):
        result = inspected(run, "--layer", f"{name}.*")
        assert result.code == 1
        assert f"{name}.stem.1" in {f["subject"] for f in result.report["findings"]}


def test_a_layer_that_runs_once_for_each_of_its_names_is_shared_and_nothing_else(run, folder):
    model = trained()
    model.layer1[1].bn1 = model.layer1[0].bn1
    model.layer1[0].bn1.num_batches_tracked.fill_(320)
    torch.save(model.state_dict(), "net.pt")
    found = [f for f in inspected(run).report["findings"] if f["code"] == "BN303"]
    assert {f["evidence"]["cause"] for f in found} == {"shared"}
    assert {f["evidence"]["momentum_assumed"] for f in found} == {True}


def test_layers_that_share_tensors_and_not_their_arguments_are_told(run, folder):
    one, two = norm_pair = [nn.BatchNorm1d(3), nn.BatchNorm1d(3, eps=1e-3, momentum=0.01)]
    nn.init.normal_(one.weight)
    one.train()(torch.randn(9, 3))
    two._parameters, two._buffers = one._parameters, one._buffers
    torch.save(nn.ModuleList(norm_pair), "net.pt")
    (finding,) = [f for f in inspected(run).report["findings"] if f["code"] == "BN610"]
    assert finding["message"] == (
        "the same tensors as '1', but eps is 1e-05 or 0.001 and momentum is 0.1 or 0.01"
    )
    assert finding["hint"].startswith("Use the same arguments in each place")


def test_how_equal_and_shared_layers_are_told(run, folder):
    model = trained()
    modules = {"a": model, "b": model, "c": copy.deepcopy(model)}
    torch.save(nn.ModuleDict(modules).state_dict(), "net.pt")
    findings = inspected(run).report["findings"]
    told = {(f["code"], f["subject"]): (f["message"], f["detail"]) for f in findings}
    assert told["BN610", "a.stem.1"] == ("the same layer as b.stem.1, counted once", "")
    assert told["BN601", "a.stem.1"] == (
        "running_mean and running_var are those of c.stem.1, bit for bit",
        "weight and bias are equal too.",
    )
    modules = {name: copy.deepcopy(model) for name in "abcde"}
    nn.init.ones_(modules["e"].stem[1].weight)
    torch.save(nn.ModuleDict(modules).state_dict(), "net.pt")
    (finding,) = (f for f in inspected(run).report["findings"] if f["subject"] == "a.stem.1")
    assert finding["message"] == "running_mean and running_var are those of 4 others, bit for bit"
    assert finding["detail"] == (
        "These are b.stem.1, c.stem.1, d.stem.1 and 1 more. weight or bias differ."
    )
