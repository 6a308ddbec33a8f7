"""PATH::NAME, and what is said where it fits nothing or too much."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bncli.errors import MissingTensorError, TensorError, UnsupportedFileError
from bncli.loaders import names, open_file, open_layer, open_tensor, split_spec
from bncli.loaders.names import missing, nearest, quoted, under

from .files import saved

BN = {
    "weight": torch.tensor([1.0, 2.0]),
    "bias": torch.tensor([3.0, 4.0]),
    "running_mean": torch.tensor([5.0, 6.0]),
    "running_var": torch.tensor([7.0, 8.0]),
    "num_batches_tracked": torch.tensor(9),
}


def prefixed(prefix, tensors):
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.pt"
    tensors = (
        prefixed("stem.bn", BN)
        | prefixed("layer1.0.bn", BN)
        | prefixed("layer1.1.bn", BN)
        | {"layer1.0.ln.weight": torch.ones(2), "layer1.0.ln.bias": torch.ones(2)}
        | {"norm.running_mean": torch.ones(2), "norm.running_var": torch.ones(2)}
    )
    path.write_bytes(saved({"state_dict": tensors, "epoch": 1}))
    return path


def fails(opener, spec):
    with pytest.raises(MissingTensorError) as caught:
        opener(spec)
    return str(caught.value)


def test_a_tensor_by_its_name_or_a_unique_end(net):
    for name in ("state_dict.stem.bn.weight", "stem.bn.weight"):
        assert open_tensor(f"{net}::{name}").name == "state_dict.stem.bn.weight"
    assert open_tensor(f"{net}::0.ln.bias").name == "state_dict.layer1.0.ln.bias"


def test_an_end_begins_at_a_dot(net):
    """`n.weight` ends three names as text, and none as a path."""
    assert "there is no tensor 'n.weight' in it" in fails(open_tensor, f"{net}::n.weight")
    assert "there is no BatchNorm layer 'm.bn' in it" in fails(open_layer, f"{net}::m.bn")


def test_sentences_about_tensors(net, tmp_path):
    assert fails(open_tensor, f"{net}") == (
        f"{net}: it holds 19 tensors; name one as net.pt::NAME ('state_dict.stem.bn.weight',"
        " 'state_dict.stem.bn.bias', 'state_dict.stem.bn.running_mean',"
        " 'state_dict.stem.bn.running_var', 'state_dict.stem.bn.num_batches_tracked',"
        " 'state_dict.layer1.0.bn.weight', 'state_dict.layer1.0.bn.bias',"
        " 'state_dict.layer1.0.bn.running_mean' and 11 more), or check its BatchNorm layers with"
        f" bncli inspect-checkpoint {net}."
    )
    assert fails(open_tensor, f"{net}::bn.weight") == (
        f"{net}: 3 tensors end in 'bn.weight'; give more of the name ('state_dict.stem.bn.weight',"
        " 'state_dict.layer1.0.bn.weight', 'state_dict.layer1.1.bn.weight')."
    )
    assert fails(open_tensor, f"{net}::stem.bn.wieght") == (
        f"{net}: there is no tensor 'stem.bn.wieght' in it; did you mean"
        " 'state_dict.stem.bn.weight' or 'state_dict.layer1.1.bn.weight'"
        " or 'state_dict.layer1.0.bn.weight'?"
    )
    assert "it has 'state_dict.stem.bn.weight', " in fails(open_tensor, f"{net}::zzzzzzz")
    empty = tmp_path / "empty.pt"
    empty.write_bytes(saved({}))
    assert fails(open_tensor, f"{empty}::a") == f"{empty}: there is no tensor in it."


def test_one_tensor_needs_no_name(tmp_path):
    np.savez(tmp_path / "x.npz", only=np.arange(3))
    assert open_tensor(str(tmp_path / "x.npz")).name == "only"


def test_slashes_part_names_too(tmp_path):
    np.savez(tmp_path / "x.npz", **{"a/b/c": np.arange(3), "d": np.arange(2)})
    assert open_tensor(f"{tmp_path / 'x.npz'}::b/c").name == "a/b/c"


def test_paths_with_colons(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("a::b.npz", x=np.arange(3), y=np.arange(2))
    assert open_tensor("a::b.npz::x").name == "x"
    assert split_spec("a::b.npz")[1] == ""
    assert split_spec("a::b.npz::x::y") == (split_spec("a::b.npz")[0], "x::y")
    assert split_spec("absent.pt::layer::x")[1] == "layer::x"
    assert split_spec("absent.pt") == (split_spec("absent.pt::y")[0], "")
    assert str(split_spec("absent.pt::y")[0]) == "absent.pt"
    assert split_spec("\0::x")[1] == "x"


def test_a_layer_by_its_name_or_a_unique_end(net):
    state = open_layer(f"{net}::layer1.1.bn")
    assert state.name == "state_dict.layer1.1.bn"
    assert state.running_var.tolist() == [7, 8]
    assert (state.num_batches_tracked, state.dtype) == (9, "float32")
    assert open_layer(f"{net}::stem.bn").name == "state_dict.stem.bn"


def test_layers_that_lack_something_are_opened_by_name(net):
    affine = open_layer(f"{net}::state_dict.layer1.0.ln")
    assert (affine.running_mean, affine.weight.tolist()) == (None, [1, 1])
    statistics = open_layer(f"{net}::norm")
    assert (statistics.weight, statistics.running_mean.tolist()) == (None, [1, 1])


def test_sentences_about_layers(net, tmp_path):
    assert fails(open_layer, f"{net}") == (
        f"{net}: it holds 3 BatchNorm layers; name one as net.pt::NAME ('state_dict.stem.bn',"
        " 'state_dict.layer1.0.bn', 'state_dict.layer1.1.bn')."
    )
    assert fails(open_layer, f"{net}::bn") == (
        f"{net}: 3 BatchNorm layers end in 'bn'; give more of the name ('state_dict.stem.bn',"
        " 'state_dict.layer1.0.bn', 'state_dict.layer1.1.bn')."
    )
    assert fails(open_layer, f"{net}::layer1.2.bn").startswith(
        f"{net}: there is no BatchNorm layer 'layer1.2.bn' in it; did you mean 'state_dict.layer1."
    )
    other = tmp_path / "other.pt"
    other.write_bytes(saved({"conv.weight": torch.zeros(1, 1, 1, 1)}))
    assert fails(open_layer, f"{other}::bn") == f"{other}: there is no BatchNorm layer in it."


def test_a_layer_alone(tmp_path):
    path = tmp_path / "bn.pt"
    path.write_bytes(saved(BN))
    assert open_layer(str(path)).name == ""
    path.write_bytes(saved({k: v for k, v in BN.items() if k.startswith("running")}))
    assert open_layer(str(path)).running_mean.tolist() == [5, 6]
    path.write_bytes(saved(prefixed("only", BN) | {"weight": torch.ones(3)}))
    assert open_layer(str(path)).name == "only"


def test_a_layer_of_strange_shape(tmp_path):
    path = tmp_path / "bn.pt"
    path.write_bytes(saved(BN | {"num_batches_tracked": torch.tensor([1, 2])}))
    with pytest.raises(
        TensorError, match=r"num_batches_tracked: num_batches_tracked is one number"
    ):
        open_layer(str(path))
    path.write_bytes(saved(BN | {"weight": torch.ones(2, 2)}))
    with pytest.raises(TensorError, match=r"weight: a BatchNorm layer has one value per channel"):
        open_layer(str(path))


def test_names_are_compared_in_time_and_shown_safely():
    many = {f"layer{n}.conv.weight" for n in range(20_000)} | {"x" * 100_000}
    assert nearest(many, "layer77.conv.wieght")
    assert quoted("a\nb\x1b[31m") == r"a\x0ab\x1b[31m"
    assert len(quoted("a" * 500)) == 80


def test_a_file_that_is_missing_is_told_with_those_like_it(tmp_path):
    def said(name):
        return str(missing(tmp_path / name)).removeprefix(f"{tmp_path / name}: ")

    assert said("good.pt") == "there is no such file."
    for name in ("good.pt", "good.npy", "other.pt"):
        (tmp_path / name).touch()
    assert said("god.pt") == "there is no such file; did you mean good.pt or good.npy?"
    assert said("good.np") == "there is no such file; did you mean good.npy or good.pt?"
    assert said("quux.pt") == "there is no such file."
    assert said("nowhere/good.pt") == f"there is no folder '{tmp_path / 'nowhere'}'."


def test_the_tensors_under_a_part(tmp_path):
    tensors = prefixed("state_dict", BN) | prefixed("state_dict_ema", BN) | {"other/x": BN["bias"]}
    (tmp_path / "net.pt").write_bytes(saved(tensors))
    file = open_file(tmp_path / "net.pt")
    assert under(file.path, file.tensors, "") is file.tensors
    assert list(under(file.path, file.tensors, "state_dict")) == [
        f"state_dict.{leaf}" for leaf in BN
    ]
    assert list(under(file.path, file.tensors, "other")) == ["other/x"]
    with pytest.raises(MissingTensorError) as caught:
        under(file.path, file.tensors, "state_dikt")
    assert str(caught.value).endswith(
        "net.pt: there is no part 'state_dikt' in it; did you mean state_dict or state_dict_ema?"
    )
    with pytest.raises(MissingTensorError, match="there is no part 'bias' in it; did you mean"):
        under(file.path, file.tensors, "bias")


def test_names_take_their_memory_and_no_more(monkeypatch):
    monkeypatch.setattr(names, "MOST_TEXT", 4 * sys.getsizeof("a" * 100))
    text = names.Text(Path("x"))
    text.take("a" * 100, 2)
    text.take("a" * 100)
    text.take("a" * 100)
    with pytest.raises(UnsupportedFileError, match="x: the names of its tensors take more than"):
        text.take("")
