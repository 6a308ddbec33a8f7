import contextlib
import json
import random
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.loaders import open_file
from bncli.loaders.torch_exported import PICKLED
from bncli.state_dict import batch_norm_layers, read_state, read_tensors
from bncli.state_dict.in_front import in_front

from .exported import archived, members, node, norm, number, program, state, value, write
from .files import assert_same, saved

SLOW = pytest.param(True, marks=pytest.mark.exhaustive)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn1 = nn.BatchNorm2d(4, eps=1e-3, momentum=0.2)
        self.up = nn.ConvTranspose2d(4, 5, 2)
        self.bn2 = nn.BatchNorm2d(5, affine=False)
        self.fc = nn.Linear(5, 6, bias=False)
        self.bn3 = nn.BatchNorm1d(6, eps=2e-5, momentum=0.3)
        self.register_buffer("scratch", torch.ones(2), persistent=False)
        self.constant = torch.arange(3.0)

    def forward(self, x):
        x = self.bn2(self.up(self.bn1(self.conv(x)).relu())).mean((2, 3))
        return self.bn3(self.fc(x)) + self.scratch.sum() + self.constant.sum()


def trained():
    torch.manual_seed(3)
    net = Net()
    for _ in range(3):
        net(torch.randn(4, 3, 6, 6))
    return net


def save(program, path):
    torch.export.save(program, path)
    return path


def exported(net, path, *, decomposed=False, shape=(4, 3, 6, 6), dtype=torch.float32):
    made = torch.export.export(net, (torch.randn(shape, dtype=dtype),))
    return save(made.run_decompositions() if decomposed else made, path)


@pytest.mark.parametrize(
    ("training", "decomposed"),
    [
        (False, False),
        (True, True),
        pytest.param(False, True, marks=pytest.mark.exhaustive),
        pytest.param(True, False, marks=pytest.mark.exhaustive),
    ],
)
def test_a_program_as_torch_writes_it(training, decomposed, tmp_path):
    net = trained().train(training)
    file = open_file(exported(net, tmp_path / "x.pt2", decomposed=decomposed))
    assert file.container == "torch-export"
    assert_same(file.tensors, net.state_dict())
    assert set(file.tensors) == set(net.state_dict())
    assert file.skipped == {}
    found = {layer.name: layer for layer in batch_norm_layers(file)}
    assert list(found) == ["bn1", "bn2", "bn3"]
    for name, layer in found.items():
        module = getattr(net, name)
        assert layer.module.class_name == type(module).__name__
        assert layer.module.eps == module.eps
        assert layer.module.momentum == module.momentum
        assert layer.module.training is training
        assert layer.module.affine is module.affine
        assert layer.module.channel_axis == 1
        state = read_state(layer)
        assert np.array_equal(state.running_var, module.running_var.numpy())
        assert state.num_batches_tracked == 3
    fronts = {name: (each.weight.name, each.axis) for name, each in in_front(file, found).items()}
    assert fronts == {
        "bn1": ("conv.weight", 0), "bn2": ("up.weight", 1), "bn3": ("fc.weight", 0),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_dtype_of_a_network(dtype, tmp_path):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval().to(dtype)
    path = exported(net, tmp_path / "x.pt2", shape=(2, 3), dtype=dtype)
    assert_same(open_file(path).tensors, net.state_dict())


@pytest.mark.filterwarnings("ignore:No complete tensor found")
def test_weights_that_are_views(tmp_path):
    """PyTorch writes the storage that several views share once."""
    net = nn.Linear(6, 4).eval()
    base = torch.randn(8, 12)
    net.weight = nn.Parameter(base[::2, 1::2])
    net.register_buffer("turned", base.t()[2:5])
    path = exported(net, tmp_path / "x.pt2", shape=(2, 6))
    file = open_file(path)
    assert_same(file.tensors, net.state_dict())
    assert file.tensors["weight"].strides == (24, 2)
    with zipfile.ZipFile(path) as archive:
        assert sum("/weight_" in name for name in archive.namelist()) == 2


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.BatchNorm1d(3, eps=0.5)
        self.b = self.a

    def forward(self, x):
        return self.b(self.a(x) * 2)


@pytest.mark.parametrize("decomposed", [False, SLOW])
def test_a_module_under_two_names(decomposed, tmp_path):
    file = open_file(
        exported(Shared().eval(), tmp_path / "x.pt2", decomposed=decomposed, shape=(2, 3))
    )
    layers = {layer.name: layer for layer in batch_norm_layers(file)}
    assert list(layers) == ["a", "b"]
    assert {layer.module.eps for layer in layers.values()} == {0.5}
    assert layers["a"].running_var.place == layers["b"].running_var.place


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("mu", "nu", "rho"):
            self.register_buffer(f"{name}_m", torch.randn(3), persistent=name == "nu")
            self.register_buffer(f"{name}_v", torch.rand(3) + 1)
        self.g = nn.Parameter(torch.rand(3))

    def forward(self, x):
        x = nn.functional.batch_norm(x, self.mu_m, self.mu_v, self.g, eps=1e-2, momentum=0.25)
        return nn.functional.batch_norm(x, self.nu_m, self.nu_v) + self.rho_m


def test_tensors_under_any_names_are_a_layer_where_the_graph_says_it(tmp_path):
    net = Functional()
    file = open_file(exported(net, tmp_path / "x.pt2", shape=(2, 3)))
    assert file.tensors.keys() == {"mu_m", "mu_v", "nu_m", "nu_v", "rho_v", "g"}
    first, second = batch_norm_layers(file)
    assert (first.name, second.name) == ("batch_norm", "batch_norm_1")
    assert {k: ref.name for k, ref in first.tensors.items()} == {
        "running_mean": "mu_m", "running_var": "mu_v", "weight": "g",
    }  # fmt: skip
    assert first.module.eps == 1e-2
    assert first.module.momentum == 0.25
    assert second.running_var.name == "nu_v"
    assert second.module.affine is False


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.yes = nn.BatchNorm1d(3, eps=0.1)
        self.no = nn.BatchNorm1d(3, eps=0.2)
        self.quiet = nn.BatchNorm1d(3, eps=0.3)

    def forward(self, x):
        x = torch.cond(x.sum() > 0, self.yes, self.no, (x,))
        with torch.no_grad():
            return self.quiet(x)


@pytest.mark.exhaustive
def test_layers_in_branches_as_torch_writes_them(tmp_path):
    file = open_file(exported(Branches().eval(), tmp_path / "x.pt2", shape=(2, 3)))
    assert {layer.name: layer.module.eps for layer in batch_norm_layers(file)} == {
        "yes": 0.1, "no": 0.2, "quiet": 0.3,
    }  # fmt: skip


class Instances(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.InstanceNorm2d(3, affine=True, track_running_stats=True)
        self.other = nn.InstanceNorm2d(3, affine=True)

    def forward(self, x):
        return self.other(self.norm(x))


@pytest.mark.parametrize("decomposed", [False, SLOW])
def test_an_instance_norm_is_no_batch_norm(decomposed, tmp_path):
    net = Instances().eval()
    file = open_file(exported(net, tmp_path / "x.pt2", decomposed=decomposed))
    assert batch_norm_layers(file) == []
    assert file.modules == {}
    assert file.skipped == {"norm": "its graph runs it as an InstanceNorm"}


def test_a_momentum_of_none_is_not_in_the_program(tmp_path):
    net = nn.Sequential(nn.BatchNorm1d(3, momentum=None)).eval()
    (layer,) = batch_norm_layers(open_file(exported(net, tmp_path / "x.pt2", shape=(2, 3))))
    assert layer.module.momentum is None
    assert not layer.module.has_momentum


def test_a_layer_without_statistics(tmp_path):
    net = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)).eval()
    (layer,) = batch_norm_layers(open_file(exported(net, tmp_path / "x.pt2", shape=(2, 3))))
    assert layer.name == "0"
    assert layer.module.track_running_stats is False
    assert layer.module.training is None


def test_folded_layers(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    fused = nn.utils.fusion.fuse_conv_bn_eval(*net)
    file = open_file(exported(fused, tmp_path / "x.pt2"))
    assert batch_norm_layers(file) == []
    assert "folded into the convolutions" in file.without_layers
    linear = open_file(exported(nn.Linear(6, 2), tmp_path / "y.pt2", shape=(2, 6)))
    assert linear.without_layers == ""


def test_several_programs_stand_behind_their_names(tmp_path):
    first, second = state(), state()
    parts = members(first, [norm("bn")], "encoder")
    for member, data in members(second, [norm("bn", eps=number(0.5))], "decoder").items():
        moved = member.replace("weight_", "weight_1") if "/weight_" in member else member
        parts[moved] = data.replace(b'"weight_', b'"weight_1')
    file = open_file(write(tmp_path / "x", parts))
    assert {layer.name: layer.module.eps for layer in batch_norm_layers(file)} == {
        "encoder.bn": 1e-5, "decoder.bn": 0.5,
    }  # fmt: skip
    assert_same(file.tensors, {f"encoder.{k}": v for k, v in first.items()})
    assert_same(file.tensors, {f"decoder.{k}": v for k, v in second.items()})


def test_pickled_weights_are_not_read(tmp_path):
    tensors = state() | {"sub": torch.rand(2)}
    file = open_file(write(tmp_path / "x", members(tensors, [norm("bn")], pickled=("sub",))))
    assert file.skipped == {"sub": PICKLED}
    assert set(file.tensors) == set(state())


def test_weights_in_one_file_of_torch_save(tmp_path):
    """As PyTorch 2.8 writes them, and with a pickle that would do harm beside them."""
    tensors = state()
    parts = {
        "m/models/model.json": json.dumps(program(tensors, [norm("bn")])).encode(),
        "m/data/weights/model.pt": saved(tensors),
        "m/data/constants/model.pt": saved({"c": torch.ones(2)}),
        "m/data/sample_inputs/model.pt": b"cos\nsystem\n(S'false'\ntR.",
        "m/archive_format": b"pt2",
    }
    file = open_file(write(tmp_path / "x", parts))
    assert_same(file.tensors, tensors)
    assert set(file.tensors) == set(tensors)
    assert [layer.name for layer in batch_norm_layers(file)] == ["bn"]
    with zipfile.ZipFile(tmp_path / "y", "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in parts.items():
            archive.writestr(member, data)
    with pytest.raises(UnsupportedFileError, match=r"are not as torch\.export\.save writes them"):
        open_file(tmp_path / "y")


def refusal(path, parts, error=CorruptFileError):
    with pytest.raises(error) as caught:
        open_file(write(path, parts))
    return str(caught.value).removeprefix(f"{path}: ")


def test_programs_that_do_not_fit_together(tmp_path):
    path = tmp_path / "x"
    good = members(state(), [norm("bn")])
    table = "m/data/weights/model_weights_config.json"
    config = json.loads(good[table])
    damaged = "; the archive is damaged, so download or save it again."

    def changed(**entry):
        now = json.loads(good[table])
        now["config"]["bn.bias"] |= entry
        return good | {table: json.dumps(now).encode()}

    meta = config["config"]["bn.bias"]["tensor_meta"]
    assert refusal(path, changed(path_name="../weight_0")) == (
        f"the bytes of its tensor bn.bias are missing{damaged}"
    )
    assert refusal(path, changed(path_name=3)) == (
        f"its tensor bn.bias has an invalid description{damaged}"
    )
    for wrong in (
        {"sizes": [{"as_int": -4}]}, {"sizes": [{"as_expr": "s0"}]}, {"strides": 3},
        {"storage_offset": None}, {"dtype": "7"}, {"sizes": [{"as_int": 1}] * 65},
    ):  # fmt: skip
        assert refusal(path, changed(tensor_meta=meta | wrong)) == (
            f"its tensor bn.bias has an invalid description{damaged}"
        )
    assert "reaches outside its storage of 4 elements" in refusal(
        path, changed(tensor_meta=meta | {"storage_offset": {"as_int": 1}})
    )
    assert refusal(path, good | {table: b"[1]"}) == f"{table} is not a table of tensors{damaged}"
    for text in (b"{", b"\xff", b"[" * 100_000, b"[[]," * 2_000_000):
        assert refusal(path, good | {"m/models/model.json": text}) == (
            f"its member m/models/model.json is not the JSON of a program{damaged}"
        )
    only_values = {"m/archive_format": b"pt2", "m/data/aotinductor/model/a.so": b"\x7fELF"}
    assert refusal(path, only_values, UnsupportedFileError) == (
        "it is a program compiled by AOTInductor, whose weights are part of its machine code; name"
        " the checkpoint that it was made from."
    )


def paths(value_, at=()):
    """The places in a JSON value."""
    yield at
    if isinstance(value_, dict | list):
        for key, inner in value_.items() if isinstance(value_, dict) else enumerate(value_):
            yield from paths(inner, (*at, key))


@pytest.mark.parametrize("number", [60, pytest.param(None, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("member", ["models/model.json", "data/weights/model_weights_config.json"])
def test_any_value_in_the_place_of_any_other(member, number, tmp_path):
    """Values or one sentence: what the graph says is never trusted to have the schema's types."""
    conv = node("conv2d.default", {"input": "y", "weight": "c.weight", "bias": value("b")}, ["x"])
    tensors = state() | {"c.weight": torch.rand(4, 1, 2, 2), "d": torch.ones(3)}
    good = members(tensors, [conv, norm("bn"), node("clone.default", {"self": "d"}, ["e"])])
    text = good[f"m/{member}"]
    others = (None, 3, -1, 1e400, "", "bn.weight", [], {}, [[]], {"name": []}, True)
    cases = [(at, other) for at in paths(json.loads(text)) if at for other in others]
    for at, other in random.Random(1).sample(cases, number or len(cases)):
        changed = inside = json.loads(text)
        for key in at[:-1]:
            inside = inside[key]
        inside[at[-1]] = other
        write(tmp_path / "x", good | {f"m/{member}": json.dumps(changed).encode()})
        with contextlib.suppress(FileError):
            file = open_file(tmp_path / "x")
            layers = {layer.name: layer for layer in batch_norm_layers(file)}
            in_front(file, layers)
            for layer in layers.values():
                read_tensors(layer)


def test_tensors_without_values(tmp_path):
    tensors = {"fake": torch.rand(3), "sparse": torch.rand(3), "odd": torch.rand(3)}
    parts = members(tensors, [])
    table = "m/data/weights/model_weights_config.json"
    config = json.loads(parts[table])
    config["config"]["sparse"]["tensor_meta"]["layout"] = 1
    config["config"]["odd"]["tensor_meta"]["dtype"] = 99
    parts |= {table: json.dumps(config).encode(), "m/data/weights/weight_0": b""}
    refs = open_file(write(tmp_path / "x", parts)).tensors
    assert refs["fake"].unreadable == "it was exported without its values, from a fake tensor"
    assert refs["sparse"].unreadable == "it is sparse"
    assert refs["odd"].unreadable == "the dtype dtype 99 is not read"


def test_a_damaged_weight_is_found_by_its_checksum(tmp_path):
    path = tmp_path / "x"
    data = bytearray(archived(members(state(), [norm("bn")])))
    data[data.index(b"weight_2") + 12] ^= 1
    path.write_bytes(data)
    file = open_file(path)
    with pytest.raises(FileError, match="weight_2 does not match its checksum"):
        file.tensors["bn.running_mean"].read()
