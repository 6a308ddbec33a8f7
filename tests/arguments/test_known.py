"""What is known of the layer behind an output: tensors one by one, and a checkpoint's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.commands.identify.samples import saved_layer


@pytest.fixture
def layer(save):
    return saved_layer(save)


def test_eps_of_a_pickled_module_is_expected(run, layer, save):
    save("module.pt", layer)
    result = run("identify", "x.npy", "y.npy", "--state", "module.pt", "-f", "json")
    assert result.report["findings"] == []


def test_tensors_one_by_one(run, layer, save):
    flags = []
    for name in ("weight", "bias", "running_mean", "running_var"):
        save(f"{name}.npy", getattr(layer, name).detach().numpy())
        flags += [f"--{name.replace('_', '-')}", f"{name}.npy"]
    result = run("identify", "x.npy", "y.npy", *flags, "-f", "json")
    assert result.report["facts"]["confident"] is True
    assert result.report["tables"]["hypotheses"][0]["eps"] == 1e-3


@pytest.mark.parametrize("normalized", [(4,), (3, 4), (6, 3, 4)])
@pytest.mark.parametrize("norm", ["LayerNorm", "RMSNorm"])
def test_a_weight_over_the_last_axes_is_taken(run, save, norm, normalized):
    """As PyTorch's LayerNorm has it; its own eps is expected, and another is told."""
    shape = (5, 6, 3, 4)
    torch.manual_seed(0)
    x = torch.randn(shape) * 2 + 1
    for eps, expected in ((1e-5, True), (3e-3, False)):
        module = getattr(torch.nn, norm)(normalized, eps=eps)
        for name, parameter in module.named_parameters():
            torch.nn.init.normal_(parameter, 1, 0.3)
            save(f"{name}.npy", parameter.detach().numpy())
        flags = ["--weight", "weight.npy"] + ["--bias", "bias.npy"] * (norm == "LayerNorm")
        save("x.npy", x.numpy())
        save("y.npy", module(x).detach().numpy())
        report = run("identify", "x.npy", "y.npy", *flags, "-f", "json").report
        first = report["tables"]["hypotheses"][0]
        assert (first["mode"], first["explains"]) == (norm, True)
        assert first["eps"] == pytest.approx(eps, rel=0.02)
        codes = [item["code"] for item in report["findings"]]
        assert codes == ([] if expected else ["BN904"])
    save("bias.npy", np.ones(6))
    result = run("identify", "x.npy", "y.npy", "--weight", "weight.npy", "--bias", "bias.npy")
    assert (result.code, result.stdout) == (2, "")


@pytest.mark.parametrize(("shape", "why"), [((4,), "complex64"), ((3, 4), "complex64")])
def test_a_weight_that_is_no_real_number_is_refused(run, layer, save, shape, why):
    """One of the shape of the input's last axes too, which a LayerNorm might have."""
    save("w.npy", np.ones(shape, np.complex64))
    result = run("identify", "x.npy", "y.npy", "--weight", "w.npy")
    assert tuple(result)[:2] == (2, "")
    assert result.stderr == f"bncli: w.npy: weight cannot be read from it ({why}).\n"
