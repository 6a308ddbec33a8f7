"""Every fault is found by its code, and nothing of a warning's weight is said of healthy files."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from bncli.rulebook import RULES
from bncli.rulebook.checkpoint import FILE_CHECKS, LAYER_CHECKS
from tests.rulebook.faults import FAULTS, average_into, averaged
from tests.rulebook.layers import beyond_its_rule, ill_said
from tests.rulebook.networks import (
    made,
    norms,
    perceptron,
    residual,
    separable,
    train,
    trained,
    volumes,
)

from . import networks


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors as small as these are faster without a second thread, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


OF_SEVERAL_FILES = {f"BN6{number}" for number in range(11, 30)}
"""Rules about two checkpoints or many, which are planted in tests/rulebook/versions.py."""

OF_PROGRAMS = {"BN108"}
"""Rules about files that are run as they stand, which torch.save does not write: test_exported."""

CHECKPOINT_RULES = [
    rule
    for rule in RULES
    if rule.code[2] in "123456" and rule.code not in OF_SEVERAL_FILES | OF_PROGRAMS
]


def said(run, saved, *flags):
    torch.save(saved, "net.pt")
    result = run("inspect-checkpoint", "net.pt", *flags, "-f", "json")
    assert result.code in (0, 1), result.stderr
    return result


def test_every_rule_for_checkpoints_has_a_fault():
    assert {fault.code for fault in FAULTS.values()} == {rule.code for rule in CHECKPOINT_RULES}
    assert len(LAYER_CHECKS) + len(FILE_CHECKS) > 10


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_by_its_code(name, run, folder):
    fault = FAULTS[name]
    saved = fault.make()
    result = said(run, saved, *fault.flags)
    findings = result.report["findings"]
    assert not list(beyond_its_rule(findings))
    mine = [finding for finding in findings if finding["code"] == fault.code]
    assert set(fault.where) <= {finding["subject"] for finding in mine}
    if fault.cause is not None:
        causes = {f["evidence"]["cause"] for f in mine if f["subject"] in fault.where}
        assert causes == {fault.cause}
    # Nothing else that weighs is said, but what comes with this very fault.
    heavy = {f["code"] for f in findings if f["severity"] != "info"} - {fault.code}
    assert heavy <= fault.besides, findings
    rule = next(rule for rule in CHECKPOINT_RULES if rule.code == fault.code)
    assert {finding["severity"] for finding in mine} == {rule.severity.value}
    errors = any(finding["severity"] == "error" for finding in findings)
    assert result.code == (1 if errors else 0)
    names = [layer["name"] for layer in result.report["tables"]["layers"]]
    for finding in findings:
        assert not list(ill_said(finding, *names))
        assert finding["evidence"], finding


def frozen(model):
    """Statistics folded into weight and bias, no counter: a FrozenBatchNorm2d that was folded."""
    state = model.state_dict()
    for name in norms(model):
        var, mean = state[f"{name}.running_var"], state[f"{name}.running_mean"]
        weight = state.get(f"{name}.weight", torch.ones_like(var)) / (var + 1e-5).sqrt()
        bias = state.get(f"{name}.bias", torch.zeros_like(var)) - mean * weight
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
        state |= {f"{name}.running_mean": torch.zeros_like(mean)}
        state |= {f"{name}.running_var": torch.ones_like(var)}
        del state[f"{name}.num_batches_tracked"]
    return state


def prefixed(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


def without_counters(state):
    return {name: value for name, value in state.items() if "num_batches" not in name}


def detector():
    """A folded, frozen backbone without counters, and a head that is trained with them."""
    return prefixed(frozen(trained()), "backbone.") | prefixed(
        trained(volumes).state_dict(), "head."
    )


def random_affine():
    """As DCGAN and old PyTorch initialise: random weights, bias 0, nothing trained yet."""
    model = made(residual)
    for module in norms(model).values():
        nn.init.normal_(module.weight, 1.0, 0.02)
    return model.state_dict()


@cache
def teacher_and_student():
    model = made(residual)
    copy_ = copy.deepcopy(model)
    train(model, step=lambda live: average_into(copy_, live, buffers=True))
    return model, copy_


def teacher(*, counters):
    model, copy_ = map(copy.deepcopy, teacher_and_student())
    for module in norms(copy_).values():
        module.num_batches_tracked.fill_(counters)
    return {"epoch": 3, "state_dict": model.state_dict(), "state_dict_ema": copy_.state_dict()}


def new_head():
    model = trained()
    torch.manual_seed(3)
    model.layer2[0].bn1 = nn.BatchNorm2d(12)
    return train(model, 85).state_dict()


def with_optimizer():
    model = trained()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 3, 6, 6)).sum().backward()
    optimizer.step()
    return {"model": model.half().state_dict(), "optimizer": optimizer.state_dict()}


def averaged_and_updated():
    model, swa = averaged(update=True)
    return {"model": model.state_dict(), "swa": swa.state_dict()}


def few_batches_for_the_average():
    """Ten batches, equally weighted; every variance is above 0.9^10."""
    generator = torch.Generator().manual_seed(9)
    swa = torch.optim.swa_utils.AveragedModel(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)))
    for _ in range(3):
        nn.init.normal_(swa.module[0].weight, generator=generator)
        swa.update_parameters(swa.module)
    update_bn([torch.randn(16, 4, generator=generator) * 3 for _ in range(10)], swa)
    assert swa.module[1].running_var.min() > 0.9**10
    return swa.state_dict()


def precise():
    """Statistics estimated anew with the cumulative average, over few batches."""
    model = trained()
    generator = torch.Generator().manual_seed(8)
    update_bn([networks.batch(generator) for _ in range(30)], model)
    for module in norms(model).values():
        module.momentum = None
    return model


def untracked():
    """A module without statistics by choice, stored whole beside others that track."""
    model = trained()
    model.layer1[0].bn1 = nn.BatchNorm2d(8, track_running_stats=False)
    return train(model, 20)


def instance_norms():
    norm = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
    for _ in range(200):
        norm(torch.randn(4, 8, 5, 5))
    return prefixed(norm.state_dict(), "in1.") | trained().state_dict()


def hybrid():
    """A network whose last stage has LayerNorm under the name that BatchNorm has elsewhere."""
    state = {}
    for stage in range(2):
        state |= prefixed(trained(separable)[1].state_dict(), f"stages.{stage}.norm1.")
    return state | prefixed(nn.LayerNorm(16).state_dict(), "stages.2.norm1.")


def generator_and_discriminator():
    """Two networks of one file that were trained for different times."""
    other = train(made(residual), 77, seed=4)
    return {"G": trained().state_dict(), "D": other.state_dict()}


def parameters_of(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def network(*keys, architecture=residual):
    """A network in training, and numbers about its parameters, by their names, below `keys`."""
    model = trained(architecture)
    aside = parameters_of(model)
    for key in reversed(keys):
        aside = {key: aside}
    return {"model": model.state_dict(), **aside}


class PowerNorm(nn.Module):
    """A norm that divides by a running variance and takes no mean away, and has no counter."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(8) + 0.5)
        self.bias = nn.Parameter(torch.randn(8))
        self.register_buffer("running_var", torch.rand(8) + 0.5)


def half_beside_a_history():
    return {
        "state_dict": trained().half().state_dict(),
        "loss_history": torch.rand(50),
        "trainer": with_optimizer() | {"optimizer": {"exp_avg": parameters_of(trained())}},
    }


def new_random_head():
    """Fine-tuning begins: the head's weight is drawn as DCGAN's, and no batch has been seen."""
    model = trained()
    model.layer2[0].bn1 = nn.BatchNorm2d(12)
    nn.init.normal_(model.layer2[0].bn1.weight, 1.0, 0.02)
    return model.state_dict()


def attention_called_ema():
    """A fresh attention of that name beside a trained layer with as many channels."""
    return prefixed(nn.BatchNorm2d(8).state_dict(), "ema.bn.") | {
        name.replace("bn1", "bn"): value for name, value in trained().state_dict().items()
    }


def masked():
    """Most channels of most layers pruned to 0, and trained on with their masks."""
    model = made(networks.deep)
    masks = {}
    for name, module in norms(model).items():
        masks[name] = (torch.arange(module.num_features) % 5 == 0).float()

    @torch.no_grad()
    def hold(live):
        linears = [each for each in live if isinstance(each, nn.Linear)]
        for linear, (name, module) in zip(linears, norms(live).items(), strict=False):
            for values in (linear.weight, module.weight, module.bias):
                values.mul_(masks[name].view(-1, *[1] * (values.ndim - 1)))

    return train(model, 400, step=hold).state_dict()


def nothing_changes():
    """A layer that was put in, and gives what it takes until it is trained."""
    model = trained()
    bn = model.layer1[0].bn1
    with torch.no_grad():
        bn.weight.copy_((bn.running_var + bn.eps).sqrt())
        bn.bias.copy_(bn.running_mean)
    return model.state_dict()


HEALTHY = {
    "residual": lambda: trained().state_dict(),
    "residual, stored whole": trained,
    "perceptron": lambda: trained(perceptron),
    "separable, eps and momentum stored": lambda: trained(separable),
    "separable, state_dict": lambda: trained(separable).state_dict(),
    "volumes": lambda: trained(volumes).state_dict(),
    "data parallel, compiled": lambda: {
        "state_dict": prefixed(trained().state_dict(), "_orig_mod.module.")
    },
    "fresh": lambda: made(residual).state_dict(),
    "fresh, stored whole": lambda: made(perceptron),
    "random affine": random_affine,
    "frozen and folded": lambda: frozen(trained()),
    "frozen backbone, trained head": detector,
    "converted without counters": lambda: without_counters(trained().state_dict()),
    "teacher with counter 0": lambda: teacher(counters=0),
    "teacher with counter 1": lambda: teacher(counters=1),
    "teacher with truncated counters": lambda: teacher(counters=networks.STEPS // 2),
    "teacher alone": lambda: teacher(counters=1)["state_dict_ema"],
    "new head": new_head,
    "half with optimizer": with_optimizer,
    "half": lambda: trained(separable).half().state_dict(),
    "averaged and updated": averaged_and_updated,
    "averaged and updated over few batches, alone": few_batches_for_the_average,
    "precise statistics": precise,
    "untracked by choice": untracked,
    "instance norm": instance_norms,
    "hybrid": hybrid,
    "two networks": generator_and_discriminator,
    "float64": lambda: trained().double().state_dict(),
    "an average of the parameters": lambda: network("ema", "shadow"),
    "an optimiser's moments by name": lambda: network("exp_avg"),
    "gradients by name": lambda: network("grads"),
    "the best parameters": lambda: network("best"),
    "power norm": lambda: trained().state_dict() | prefixed(PowerNorm().state_dict(), "power."),
    "half beside a history": half_beside_a_history,
    "new random head": new_random_head,
    "attention called ema": attention_called_ema,
    "masked": masked,
    "nothing changes": nothing_changes,
}
"""What people save when nothing is wrong."""


def test_of_a_fresh_network_one_thing_is_said_of_each_layer(run, folder):
    """Though the last weight of each residual branch is exactly 0."""
    report = said(run, made(residual).state_dict()).report
    assert {row["flags"] for row in report["tables"]["layers"]} == {"BN103"}


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_that_weighs_is_said_of_a_healthy_file(name, run, folder):
    result = said(run, HEALTHY[name]())
    heavy = [f for f in result.report["findings"] if f["severity"] != "info"]
    assert heavy == []
    assert result.code == 0
    assert result.report["tables"]["layers"]


def findings_of(run, saved, code):
    return [f for f in said(run, saved).report["findings"] if f["code"] == code]


def test_a_counter_of_an_instance_norm_stays_at_0_and_is_said_to(run, folder):
    (finding,) = findings_of(run, instance_norms(), "BN305")
    assert finding["message"] == (
        "num_batches_tracked is 0, but the statistics are not the initial 0 and 1"
    )
    assert finding["detail"] == (
        "Possible causes: an averaged copy, a converted file, old weights, new statistics from "
        "bncli recalibrate, which keeps the counter, or an InstanceNorm, which never counts."
    )


def test_a_layer_that_counted_is_not_said_to_have_never_trained(run, folder):
    model = trained()
    model.stem[1].running_mean.zero_()
    model.stem[1].running_var.fill_(1)
    (finding,) = findings_of(run, model.state_dict(), "BN101")
    assert finding["evidence"]["cause"] == "momentum-0-or-reset"
    told = f"{finding['message']}. {finding['detail']}"
    assert f"num_batches_tracked is {networks.STEPS}" in told
    assert "the momentum was 0" in told
    assert "never" not in told


@pytest.mark.parametrize(
    ("counter", "code"),
    [
        (torch.full((16,), 80), "BN304"),
        (torch.zeros(0, dtype=torch.int64), "BN304"),
        (torch.full((1, 2), 80), "BN304"),
        (torch.tensor(True), "BN304"),
        (torch.tensor(80 + 0j), "BN304"),
        (torch.tensor(0.5), "BN304"),
        (torch.tensor(80, device="meta"), "BN207"),
        (torch.tensor([80]), None),
        (torch.tensor(80.0), None),
    ],
)
def test_a_counter_that_was_read_is_not_said_to_be_unreadable(run, folder, counter, code):
    state = trained().state_dict()
    state["stem.1.num_batches_tracked"] = counter
    found = said(run, state).report["findings"]
    mine = {f["code"] for f in found if f["subject"] == "stem.1"} - {"BN305"}
    assert mine == ({code} if code else set())


@pytest.mark.parametrize(
    ("leaf", "value", "code"),
    [("running_mean", torch.nan, "BN201"), ("running_var", -torch.inf, "BN202")],
)
def test_what_no_batch_can_have_left_was_overwritten(run, folder, leaf, value, code):
    """NaN activations make both statistics NaN, and an overflow is never below 0."""
    model = trained()
    getattr(model.stem[1], leaf)[2] = value
    (finding,) = findings_of(run, model.state_dict(), code)
    assert finding["evidence"]["cause"] == "overwritten"
    assert "overwritten" in finding["detail"]


def test_a_block_without_buffers_is_no_copy_of_another(run, folder):
    """layer1.0 has the names of layer1.1, and is still the network's own."""
    state = trained().state_dict()
    gone = [name for name in state if name.startswith("layer1.0.bn") and "running" in name]
    bare = {name: value for name, value in state.items() if name not in gone}
    found = {f["subject"] for f in findings_of(run, bare, "BN106")}
    assert found == {"layer1.0.bn1", "layer1.0.bn2"}
    bare = {name: value for name, value in bare.items() if "num_batches" not in name}
    assert {f["subject"] for f in findings_of(run, bare, "BN106")} == found


def test_a_single_layer_is_no_copy_of_the_network(run, folder):
    state = trained().state_dict()
    bare = {f"second.layer1.0.bn1.{leaf}": torch.rand(8) for leaf in ("weight", "bias")}
    saved = prefixed(state, "first.") | bare
    assert [f["subject"] for f in findings_of(run, saved, "BN106")] == ["second.layer1.0.bn1"]


def test_a_teacher_whose_statistics_were_filtered_out_is_blamed(run, folder):
    """It has counters, so that more than its parameters was saved."""
    saved = teacher(counters=0)
    saved["state_dict_ema"] = {
        name: value for name, value in saved["state_dict_ema"].items() if "running" not in name
    }
    assert len(findings_of(run, saved, "BN106")) == len(norms(made(residual)))


def spoilt():
    """A network with stored eps and momentum, in which one batch of training had a NaN."""
    model = trained(separable)
    x, _ = networks.batch(torch.Generator().manual_seed(5))
    x[3, 1, 2, 2] = torch.nan
    model.train()(x)
    return model


def write(container, model):
    """Save a model into a container; the file to open."""
    state = model.state_dict()
    if container == "torchscript":
        torch.jit.save(torch.jit.script(model), "net.pt")
    elif container == "module":
        torch.save(nn.DataParallel(model), "net.pt")
    elif container == "legacy":
        torch.save({"state_dict": state}, "net.pt", _use_new_zipfile_serialization=False)
    elif container in ("npz", "npz-compressed"):
        save = np.savez if container == "npz" else np.savez_compressed
        with open("net.pt", "wb") as file:  # noqa: PTH123  # NumPy would add a suffix to a path
            save(file, **{name.replace(".", "/"): value.numpy() for name, value in state.items()})
    elif container == "safetensors":
        safetensors.torch.save_file(state, "net.pt")
    elif container == "sharded":
        names = list(state)
        parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
        for part, keys in parts.items():
            safetensors.torch.save_file({key: state[key] for key in keys}, part)
        places = {key: part for part, keys in parts.items() for key in keys}
        Path("net.json").write_text(json.dumps({"weight_map": places}))
        return "net.json"
    return "net.pt"


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(
    "container",
    ["legacy", "module", "npz", "npz-compressed", "safetensors", "sharded", "torchscript"],
)
def test_a_fault_is_found_in_every_container(container, run, folder):
    model = spoilt()
    expected = set(norms(model))
    result = run("inspect-checkpoint", write(container, model), "-f", "json")
    assert result.code == 1
    rows = result.report["tables"]["layers"]
    assert {
        row["name"].replace("/", ".").removeprefix("state_dict.").removeprefix("module.")
        for row in rows
    } == expected
    assert {row["flags"] for row in rows} == {"BN201"}
    stored = container == "module"  # TorchScript keeps eps in its code, which is not read
    eps = [1e-5] + [1e-3 if stored else 1e-5] * 4
    found = {row["name"].rpartition(".")[2].rpartition("/")[2]: row["eps"] for row in rows}
    assert [found[name] for name in norms(model)] == eps
    assert result.report["facts"]["eps_source"] == ("file" if stored else "assumed")
