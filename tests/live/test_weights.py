"""A checkpoint's weights in a model: the part that fits, what must agree, and fingerprints."""

from __future__ import annotations

import zlib
from copy import deepcopy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bncli.errors import BncliError, FileError, MissingTensorError, ModelError
from bncli.live.weights import crc_of, fingerprint, load_weights, tensors_in


class Net(nn.Module):
    def __init__(self, width=4, *, bias=True):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, bias=bias)
        self.bn = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.bn(self.conv(x)).mean((2, 3)))


def net(seed: int = 0, **arguments) -> Net:
    """A network that was trained for a while."""
    torch.manual_seed(seed)
    made = Net(**arguments)
    for _ in range(3):
        made(torch.randn(4, 3, 8, 8))
    return made


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether all tensors have equal bytes."""
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def refusal(model: nn.Module, spec: str, error: type[BncliError] = MissingTensorError, **how):
    """The sentence, after which the model is as it was."""
    before = deepcopy(model)
    with pytest.raises(error) as caught:
        load_weights(model, spec, **how)
    assert same(model, before)
    assert str(caught.value).isprintable()
    return str(caught.value)


def prefixed(state, prefix):
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    ("wrap", "part"),
    [
        (lambda state: state, ""),
        (lambda state: {"state_dict": state, "epoch": 3}, "state_dict"),
        (lambda state: prefixed(state, "module."), "module"),
        (lambda state: {"model": prefixed(state, "module.")}, "model.module"),
        (lambda state: {"a": {"state_dict": prefixed(state, "_orig_mod.module.")}},
         "a.state_dict._orig_mod.module"),
        (lambda state: {"state_dict": prefixed(state, "net."), "loss": {"weight": torch.ones(2)}},
         "state_dict.net"),
        (lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
         "model"),
        (lambda state: {"ema": {"n_averaged": torch.tensor(3), **prefixed(state, "module.")}},
         "ema.module"),
    ],
    ids=["bare", "state_dict", "module", "model.module", "compiled", "lightning", "optimizer",
         "averaged"],
)  # fmt: skip
def test_the_part_that_fits(save, wrap, part):
    trained, model = net(1), net(2)
    path = save("net.pth", wrap(trained.state_dict()))
    facts = load_weights(model, path)
    assert same(model, trained)
    assert facts.pop("n_averaged") == (3 if part == "ema.module" else None)
    assert len(facts.pop("fingerprint")) == 8
    assert facts == {"path": path, "part": part, "keys": 9, "missing": [], "converted": []}


@pytest.mark.parametrize(
    "wrapped",
    [
        nn.DataParallel,
        lambda model: nn.ModuleDict({"model": model}),
        lambda model: nn.ModuleDict({"module": nn.ModuleDict({"net": model})}),
    ],
    ids=["parallel", "model", "nested"],
)
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "state_dict.module."])
def test_wrappers_on_either_side(save, wrapped, prefix):
    trained, model = net(1), net(2)
    path = save("net.pth", prefixed(trained.state_dict(), prefix))
    assert load_weights(wrapped(model), path)["keys"] == 9
    assert same(model, trained)


def test_a_wrapper_inside_a_name(save):
    trained, model = net(1), net(2)
    state = {
        key.replace("bn.", "bn._orig_mod."): each for key, each in trained.state_dict().items()
    }
    load_weights(model, save("net.pth", state))
    assert same(model, trained)


def test_a_saved_module_and_safetensors(save):
    trained, model = net(1), net(2)
    load_weights(model, save("net.pth", trained))  # pickled as an object, and never unpickled
    assert same(model, trained)
    save_file(prefixed(trained.state_dict(), "model."), "net.safetensors")
    model = net(2)
    load_weights(model, "net.safetensors")
    assert same(model, trained)


def test_nothing_in_the_file_is_run(save):
    class Hostile:
        def __reduce__(self):
            return (exec, ("raise SystemExit('it ran')",))

    path = save("net.pth", {"model": net(1).state_dict(), "config": Hostile()})
    load_weights(net(2), path)


# ------------------------------------------------------------------ which part


def test_parts_that_fit_equally(save):
    live, averaged, model = net(1), net(2), net(3)
    path = save("net.pth", {
        "model": live.state_dict(), "model_ema": prefixed(averaged.state_dict(), "module."),
    })  # fmt: skip
    assert refusal(model, path) == (
        "net.pth: 'model' and 'model_ema.module' fit the model equally; say which with "
        "--checkpoint net.pth::model."
    )
    assert load_weights(model, f"{path}::model")["part"] == "model"
    assert same(model, live)
    assert load_weights(model, f"{path}::model_ema")["part"] == "model_ema.module"
    assert same(model, averaged)


def test_the_part_with_most_of_the_keys(save):
    live, model = net(1), net(2)
    shadow = {key: value for key, value in net(3).state_dict().items() if "running" not in key}
    path = save("net.pth", {"ema": shadow, "model": live.state_dict()})
    assert load_weights(model, path)["part"] == "model"
    assert same(model, live)
    assert "lacks 2 keys (bn.running_mean, bn.running_var)" in refusal(model, f"{path}::ema")


def test_a_part_that_is_not_there(save):
    path = save(
        "net.pth", {"state_dict": net(1).state_dict(), "state_dict_ema": net().state_dict()}
    )
    assert refusal(net(3), f"{path}::state_dict_em") == (
        "net.pth: there is no part 'state_dict_em' in it; did you mean state_dict_ema or "
        "state_dict?"
    )
    assert refusal(net(3), f"{path}::zzz") == (
        "net.pth: there is no part 'zzz' in it; did you mean state_dict or state_dict_ema?"
    )


def test_a_checkpoint_of_something_else(save):
    path = save("net.pth", {"encoder.weight": torch.ones(2), "encoder.bias": torch.ones(2)})
    assert refusal(net(), path) == (
        "net.pth: none of the model's 9 tensors is in it; it has 2 keys (encoder.weight, "
        "encoder.bias), and the model has 9 keys (conv.weight, conv.bias, bn.weight, bn.bias, "
        "bn.running_mean and 4 more)."
    )
    assert "is in it; it has no keys, and the model has" in refusal(net(), save("empty.pth", {}))


# ------------------------------------------------------------------ what must agree


def test_keys_that_are_missing_or_left_over(save):
    trained, model = net(1), net(2)
    state = trained.state_dict()
    del state["head.bias"]
    path = save("net.pth", {"model": state})
    assert refusal(model, path) == (
        "net.pth: under 'model' it lacks 1 key (head.bias), which the model has; check MODEL and "
        "its --arg, or accept that with --allow-missing-keys."
    )
    bias = model.head.bias.clone()
    assert load_weights(model, path, allow_missing=True)["missing"] == ["head.bias"]
    assert torch.equal(model.head.bias, bias)
    assert torch.equal(model.head.weight, trained.head.weight)

    state["aux.weight"] = torch.ones(2)
    path = save("more.pth", state)
    both = (
        "more.pth: it lacks 1 key (head.bias), which the model has, and it has 1 key (aux.weight), "
        "which the model lacks; check MODEL and its --arg."
    )
    assert refusal(model, path) == both
    assert refusal(model, path, allow_missing=True) == (
        "more.pth: it has 1 key (aux.weight), which the model lacks; check MODEL and its --arg."
    )
    many = prefixed({str(number): torch.ones(1) for number in range(9)}, "old.")
    assert "it has 9 keys (old.0, old.1, old.2, old.3, old.4 and 4 more), which" in refusal(
        model, save("many.pth", trained.state_dict() | many)
    )


def test_a_counter_may_be_missing_and_is_unknown_then(save):
    trained, model = net(1), net(2)
    state = trained.state_dict()
    del state["bn.num_batches_tracked"]
    assert load_weights(model, save("net.pth", state))["missing"] == []
    assert model.bn.num_batches_tracked is None
    assert model.state_dict().keys() == state.keys()
    model.train()(torch.randn(4, 3, 8, 8))  # which has no counter to count with
    cumulative = net(2)
    cumulative.bn.momentum = None  # and here each update needs it
    load_weights(cumulative, "net.pth")
    assert int(cumulative.bn.num_batches_tracked) == 3


def test_a_tensor_under_two_names_is_needed_once(save):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(3, 3, bias=False)
            self.head = nn.Linear(3, 3, bias=False)
            self.head.weight = self.embed.weight

    model = Tied()
    path = save("net.pth", {"embed.weight": torch.full((3, 3), 2.0)})
    assert load_weights(model, path)["missing"] == []
    assert model.head.weight.unique().item() == 2.0


def test_shapes_that_differ(save):
    path = save("net.pth", net(1, width=5).state_dict())
    sentence = refusal(net(2), path, ModelError)
    assert sentence.startswith(
        "net.pth: conv.weight is [5, 3, 3, 3] in it and [4, 3, 3, 3] in the model, conv.bias is "
        "[5] in it and [4] in the model, "
    )
    assert sentence.endswith(" and 4 more; check MODEL and its --arg.")
    state = net(1).state_dict()
    state["bn.num_batches_tracked"] = state["bn.num_batches_tracked"][None]  # as long ago
    load_weights(net(2), save("old.pth", state))


def test_dtypes_stay_the_models_and_are_said(save):
    trained = net(1).half()
    model = net(2)
    path = save("net.pth", trained.state_dict())
    assert load_weights(model, path)["converted"] == ["float16 to float32 in 8 tensors"]
    assert same(model, trained.float())
    state = {
        key: each.bfloat16()
        for key, each in net(1).state_dict().items()
        if each.is_floating_point()
    }
    load_weights(model, save("bf.pth", state))
    assert torch.equal(model.conv.weight, net(1).conv.weight.bfloat16().float())
    model = net(2).bfloat16()
    assert load_weights(model, "bf.pth")["converted"] == []
    assert model.conv.weight.dtype == torch.bfloat16
    assert torch.equal(model.conv.weight, net(1).conv.weight.bfloat16())
    state["conv.bias"] = torch.ones(4, dtype=torch.complex64)
    assert refusal(net(2), save("complex.pth", state), ModelError) == (
        "complex.pth: conv.bias is complex64 in it and float32 in the model; check MODEL and its "
        "--arg."
    )


def test_a_lazy_model(save):
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d())
    path = save("net.pth", {"0.weight": torch.ones(4, 3, 3, 3)})
    said = r"^the model has 6 keys \(0.weight, .* and 1 more\) without a shape before"
    with pytest.raises(ModelError, match=said):
        load_weights(model, path)


def test_a_file_that_is_not_there_or_damaged(save, folder):
    assert refusal(net(), "nothing.pth", FileError).startswith("nothing.pth: there is no such file")
    (folder / "cut.pth").write_bytes(
        (folder / save("net.pth", net().state_dict())).read_bytes()[:-9]
    )
    refusal(net(), "cut.pth", FileError)


def test_parameters_keep_what_they_are(save):
    model = net(2)
    model.conv.weight.requires_grad_(requires_grad=False)
    before = [(id(each), each.requires_grad) for each in model.parameters()]
    load_weights(model, save("net.pth", net(1).state_dict()))
    assert [(id(each), each.requires_grad) for each in model.parameters()] == before


# ------------------------------------------------------------------ fingerprints


def test_fingerprints_are_sums_of_lines_of_sums():
    model = net(1)
    lines = [
        f"{key} {zlib.crc32(value.numpy().tobytes()):08x}\n"
        for key, value in model.state_dict().items()
        if not key.startswith("bn.running") and "num_batches" not in key
    ]
    assert fingerprint(model)["weights"] == f"{zlib.crc32(''.join(sorted(lines)).encode()):08x}"


def test_what_changes_a_fingerprint():
    first = fingerprint(net(1))
    assert fingerprint(net(1)) == first
    assert fingerprint(nn.DataParallel(net(1))) == first
    assert fingerprint(nn.ModuleDict({"model": net(1)})) == first
    other = net(1)
    other.bn.running_var[0] += 1
    assert fingerprint(other)["weights"] == first["weights"]
    assert fingerprint(other)["running_statistics"] != first["running_statistics"]
    other = net(1)
    other.bn.num_batches_tracked += 1
    assert fingerprint(other)["running_statistics"] != first["running_statistics"]
    other = net(1)
    other.head.bias.data[0] += 1
    assert fingerprint(other)["weights"] != first["weights"]
    assert fingerprint(other)["running_statistics"] == first["running_statistics"]
    assert fingerprint(net(1).double())["weights"] != first["weights"]


def test_the_sum_of_a_tensor_is_of_its_elements_in_order():
    x = torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2)
    assert crc_of(x) == zlib.crc32(x.numpy().tobytes())
    assert crc_of(x.to(memory_format=torch.channels_last)) == crc_of(x)
    assert crc_of(x.expand(5, 2, 3, 2, 2)) == crc_of(torch.stack([x] * 5))
    assert crc_of(x.requires_grad_()) == crc_of(x)
    assert crc_of(torch.ones(()).bfloat16()) == zlib.crc32(b"\x80\x3f")
    assert crc_of(torch.ones(0)) == 0
    assert crc_of(torch.tensor(data=True)) == zlib.crc32(b"\x01")
    assert crc_of(torch.eye(3).to_sparse()) == crc_of(torch.eye(3))


def test_tensors_in_nested_values():
    a, b, c = torch.ones(1), torch.ones(2), torch.ones(3)
    assert [len(each) for each in tensors_in([c, {"y": b, "x": (a, "text", None)}])] == [3, 1, 2]


def test_the_number_of_averaged_weights_is_kept(save):
    live = net()
    average = torch.optim.swa_utils.AveragedModel(live)
    for _ in range(3):
        average.update_parameters(live)
    averaged = save("average.pt", average.state_dict())
    assert load_weights(net(), averaged)["n_averaged"] == 3
    both = save("both.pt", {"model": live.state_dict(), "ema": average.state_dict()})
    assert load_weights(net(), f"{both}::ema")["n_averaged"] == 3
    assert load_weights(net(), f"{both}::model")["n_averaged"] is None


def test_constants_of_a_graph_are_not_left_over(save, tmp_path):
    """What an exporter adds beside the state_dict; a weight that the model lacks is named."""
    import onnx

    trained, model = net(1), net(2)
    state = trained.state_dict()
    del state["bn.num_batches_tracked"]
    arrays = {**state, "/Constant_output_0": torch.ones(1), "val_3": torch.ones(2)}

    def written(arrays):
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["x"], ["y"])],
            "net",
            [onnx.helper.make_tensor_value_info("x", 1, [1])],
            [onnx.helper.make_tensor_value_info("y", 1, [1])],
            [onnx.numpy_helper.from_array(each.numpy(), name) for name, each in arrays.items()],
        )
        path = tmp_path / "net.onnx"
        path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
        return str(path)

    load_weights(model, written(arrays))
    assert torch.equal(model.bn.running_var, trained.bn.running_var)
    assert "it has 1 key (aux.weight), which" in refusal(
        model, written(arrays | {"aux.weight": torch.ones(2)})
    )
