"""What looks like BatchNorm and is skipped is named, and transformers are left alone."""

import pytest
import safetensors.torch
import torch
from torch import nn

from tests.rulebook.networks import made, norms, residual, separable, trained


def note(run, saved, code=3, write=torch.save):
    """What BN107 says of a file, None where it says nothing."""
    write(saved, "net.pt")
    result = run("inspect-checkpoint", "net.pt", "-f", "json", "--fail-on", "info")
    assert result.code == code
    found = [f for f in result.report["findings"] if f["code"] == "BN107"]
    assert len(found) <= 1
    if not found:
        return None
    assert found[0]["severity"] == "info"
    assert found[0]["certainty"] == "likely"
    return found[0]["evidence"] | {key: found[0][key] for key in ("message", "detail")}


def parameters(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def plain():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


def test_parameters_without_buffers_are_named(run, folder):
    said = note(run, parameters(plain()))
    assert said["affine_alone"] == ["1", "4"]
    assert said["after"] == ["0", "3"]
    assert said["message"] == "2 layers have weight and bias alone"
    assert said["detail"] == (
        "Layers '1' and '4' each have as many values as the preceding convolution has output "
        "channels. They are probably BatchNorm whose buffers were not saved, although LayerNorm "
        "and GroupNorm would look the same."
    )


def test_the_note_reaches_every_format(run, folder):
    torch.save(parameters(plain()), "net.pt")
    for form in ("table", "markdown", "github", "sarif", "junit"):
        result = run("inspect-checkpoint", "net.pt", "-f", form)
        assert result.code == 3
        assert "BN107" in result.stdout, form


@pytest.mark.parametrize("write", [torch.save, safetensors.torch.save_file])
def test_a_whole_network_without_buffers_is_named(run, folder, write):
    """safetensors sorts by name: bn1 stands before conv1 there."""
    model = made(residual)
    said = note(run, parameters(model), write=write)
    assert set(said["affine_alone"]) == set(norms(model))


@pytest.mark.parametrize("conv", [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d])
def test_any_convolution_speaks_for_the_layer_behind_it(run, folder, conv):
    model = nn.Sequential(conv(4, 6, 3), nn.BatchNorm2d(6), conv(6, 5, 3), nn.BatchNorm2d(5))
    assert note(run, parameters(model))["affine_alone"] == ["1", "3"]


def test_by_its_name_a_batch_norm_needs_no_convolution(run, folder):
    saved = {f"fc.bn1.{leaf}": torch.rand(8) for leaf in ("weight", "bias")}
    said = note(run, saved)
    assert said["affine_alone"] == ["fc.bn1"]
    assert said["detail"].startswith("It is probably BatchNorm whose buffers were not saved, ")


def test_statistics_alone_are_named(run, folder):
    saved = {}
    for number in (2, 5):
        norm = nn.InstanceNorm2d(16, track_running_stats=True)
        norm(torch.randn(2, 16, 8, 8))
        for leaf in ("running_mean", "running_var"):
            saved[f"model.{number}.{leaf}"] = getattr(norm, leaf)
        saved[f"model.{number - 1}.weight"] = torch.randn(16, 3, 3, 3)
    said = note(run, saved)
    assert said["statistics_alone"] == ["model.2", "model.5"]
    assert said["affine_alone"] == []
    for word in ("InstanceNorm", "affine=False"):
        assert word in said["detail"]


def test_they_are_named_beside_layers_that_are_judged(run, folder):
    saved = trained().state_dict()
    saved |= {"in1.running_mean": torch.rand(8), "in1.running_var": torch.rand(8)}
    said = note(run, saved, code=1)
    assert said["statistics_alone"] == ["in1"]
    assert said["message"] == "1 layer has running_mean and running_var alone"
    assert said["detail"].startswith("It is InstanceNorm with track_running_stats, ")


def test_a_normaliser_of_inputs_counts_and_is_left_alone(run, folder):
    leaves = {"running_mean": torch.rand(8), "running_var": torch.rand(8), "count": torch.ones(())}
    assert note(run, {f"obs_rms.{leaf}": value for leaf, value in leaves.items()}) is None


def transformer():
    """Names and shapes of a vision transformer: a convolution, and LayerNorm everywhere."""
    state = {"pos_embed": torch.rand(1, 5, 16), "patch_embed.proj.weight": torch.rand(16, 3, 4, 4)}
    state["patch_embed.proj.bias"] = torch.rand(16)
    for block in range(4):
        for norm, linear in (("norm1", "attn.qkv"), ("norm2", "mlp.fc1")):
            for leaf in ("weight", "bias"):
                state[f"blocks.{block}.{norm}.{leaf}"] = torch.rand(16)
            state[f"blocks.{block}.{linear}.weight"] = torch.rand(16, 16)
            state[f"blocks.{block}.{linear}.bias"] = torch.rand(16)
    return state


def swin():
    """As a transformer, with a LayerNorm right behind the convolution of its patches."""
    return {
        **{f"patch_embed.norm.{leaf}": torch.rand(16) for leaf in ("weight", "bias")},
        **transformer(),
    }


def perceptron():
    return parameters(nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2)))


def named_otherwise():
    saved = {}
    for number, name in enumerate(("ln", "gn1", "LayerNorm", "group_norm", "layer_norm2")):
        saved[f"{number}.conv.weight"] = torch.rand(8, 3, 3, 3)
        saved |= {f"{number}.{name}.{leaf}": torch.rand(8) for leaf in ("weight", "bias")}
    return saved


@pytest.mark.parametrize(
    "saved", [transformer, swin, perceptron, named_otherwise], ids=lambda make: make.__name__
)
def test_networks_without_batch_norm_are_left_alone(run, folder, saved):
    assert note(run, saved()) is None


def test_a_layer_of_another_width_is_no_batch_norm(run, folder):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 4))
    assert note(run, parameters(model)) is None


def test_behind_convolutions_with_a_bias_another_norm_is_likelier(run, folder):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3))
    said = note(run, parameters(model))
    assert said["affine_alone"] == ["1"]
    assert said["message"] == "1 layer has weight and bias alone"
    assert said["detail"] == (
        "Layer '1' has as many values as the preceding convolution has output channels. It is "
        "GroupNorm or LayerNorm, or BatchNorm whose buffers were not saved."
    )


def test_a_group_norm_behind_a_batch_norm_is_left_alone(run, folder):
    assert note(run, trained(separable).state_dict(), code=0) is None


def test_copies_of_the_parameters_are_named_once(run, folder):
    model = plain()
    saved = {"model": parameters(model), "ema": parameters(model), "exp_avg": parameters(model)}
    assert note(run, saved)["affine_alone"] == ["model.1", "model.4"]


def test_a_single_finding_names_all_and_says_some(run, folder):
    saved = {}
    for number in range(30):
        saved[f"conv{number}.weight"] = torch.rand(8, 3, 3, 3)
        saved |= {f"norm{number}.{leaf}": torch.rand(8) for leaf in ("weight", "bias")}
    said = note(run, saved)
    assert len(said["affine_alone"]) == 30
    assert said["message"] == "30 layers have weight and bias alone"
    assert "norm3 and 26 more" in said["detail"]


def test_both_kinds_are_told_apart(run, folder):
    saved = {f"in1.{leaf}": torch.rand(8) for leaf in ("running_mean", "running_var")}
    saved |= {f"fc.bn1.{leaf}": torch.rand(8) for leaf in ("weight", "bias")}
    said = note(run, saved)
    assert said["message"] == (
        "1 layer has weight and bias alone, 1 layer has running_mean and running_var alone"
    )
    assert said["detail"].startswith(
        "Layer fc.bn1 has weight and bias alone. It is probably BatchNorm "
    )
    assert (
        " Layer in1 has running_mean and running_var alone. It is InstanceNorm " in said["detail"]
    )
