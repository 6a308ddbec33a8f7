import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.files.file_bytes import FileBytes
from bncli.loaders import open_file, open_model, open_tensor
from bncli.state_dict import batch_norm_layers, read_state

from .distributed import Writer, small
from .files import assert_same, newer_values, saved, values
from .pickles import name, text, whole

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.mark.parametrize("which", ["", ".metadata", "__0_0.distcp"])
def test_a_checkpoint_as_torch_writes_it(which, tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    net(torch.randn(4, 3, 5, 5)).sum().backward()
    optimizer = torch.optim.Adam(net.parameters())
    optimizer.step()
    tensors = values() | newer_values()
    everything = {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": 3,
        "several": [torch.ones(2), torch.zeros(3)],
        "any": tensors,
    }
    dcp.save(everything, checkpoint_id=tmp_path / "step-5")
    file = open_file(tmp_path / "step-5" / which)
    assert file.path == tmp_path / "step-5"
    assert file.container == "torch-dcp"
    assert_same(file.tensors, {f"any.{key}": value for key, value in tensors.items()})
    assert_same(file.tensors, {f"model.{key}": value for key, value in net.state_dict().items()})
    assert_same(file.tensors, {"several.0": torch.ones(2), "several.1": torch.zeros(3)})
    assert "step" not in file.tensors
    assert all(isinstance(ref.storage, FileBytes) for ref in file.tensors.values())
    places = [ref.place for ref in file.tensors.values() if ref.place]
    assert len(set(places)) == len(places)
    layer, other = batch_norm_layers(file)
    assert (layer.name, other.name) == ("model.1", "any.bn")
    assert read_state(layer).num_batches_tracked == 1


RANK = """
import os, sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group(
    "gloo", init_method=f"file://{folder}.store", rank=rank, world_size=2
)
mesh = init_device_mesh("cpu", (2,))
full = torch.load(f"{folder}.pt")
shards = {key: distribute_tensor(each, mesh, [Shard(each.ndim - 1)]) for key, each in full.items()}
dcp.save({"model": shards, "whole": full["bn.weight"]}, checkpoint_id=folder)
dist.destroy_process_group()
"""


@pytest.mark.exhaustive  # two processes that both import PyTorch
def test_two_ranks_as_torch_writes_them(tmp_path):
    full = {
        "bn.weight": torch.rand(5), "bn.running_var": torch.rand(5).double(),
        "bn.running_mean": torch.randn(5).half(), "conv.weight": torch.randn(3, 4, 2, 7).bfloat16(),
        "one": torch.randn(3, 1),
    }  # fmt: skip
    torch.save(full, tmp_path / "x.pt")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "x")],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    errors = [rank.communicate(timeout=100)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    file = open_model(tmp_path / "x")
    assert {path.name for path in (tmp_path / "x").glob("*.distcp")} == {
        "__0_0.distcp", "__1_0.distcp",
    }  # fmt: skip
    assert_same(file.tensors, {f"model.{key}": value for key, value in full.items()})
    assert_same(file.tensors, {"whole": full["bn.weight"]})
    assert callable(file.tensors["model.bn.weight"].storage)


@st.composite
def cut(draw):
    """The shape of a tensor, and its pieces in any order: cut again and again along any axis."""
    shape = tuple(draw(st.lists(st.integers(0, 6), max_size=3)))
    boxes = [((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 6)) if shape else 0):
        offsets, sizes = boxes.pop(draw(st.integers(0, len(boxes) - 1)))
        axis = draw(st.integers(0, len(shape) - 1))
        at = draw(st.integers(0, sizes[axis]))
        left, right, begin = list(sizes), list(sizes), list(offsets)
        left[axis], right[axis] = at, sizes[axis] - at
        begin[axis] += at
        boxes += [(offsets, tuple(left)), (tuple(begin), tuple(right))]
    # Two pieces that begin at one place cannot be told apart; one of them is empty.
    distinct = {offsets: sizes for offsets, sizes in boxes if 0 not in sizes}
    return shape, draw(st.permutations(list(distinct.items()) or boxes[:1]))


@settings(max_examples=40, deadline=None)
@given(cut(), st.sampled_from([torch.float32, torch.bfloat16, torch.int16, torch.complex64]))
def test_pieces_of_any_cut_are_the_tensor(tmp_path_factory, made, dtype):
    shape, boxes = made
    tensor = (torch.randn(shape) * 100).to(dtype)
    writer = Writer()
    boxes = [(*box, f"__{number % 3}_0.distcp") for number, box in enumerate(boxes)]
    writer.tensor("x", tensor, boxes)
    folder = writer.write(tmp_path_factory.mktemp("dcp"))
    file = open_model(folder)
    assert_same(file.tensors, {"x": tensor})
    if len(boxes) > 1:
        # One piece twice, or left out, is not a tensor.
        whole_again = [*boxes, ((0,) * len(shape), shape, "__9_0.distcp")]
        for wrong in (boxes[1:], whole_again):
            writer = Writer()
            writer.tensor("x", tensor, wrong)
            with pytest.raises(CorruptFileError, match=r"the pieces of its tensor x|other pieces"):
                open_model(writer.write(tmp_path_factory.mktemp("dcp")))


def test_a_small_checkpoint_of_two_ranks(tmp_path):
    writer, tensors = small()
    folder = writer.write(tmp_path / "x")
    file = open_file(folder)
    assert_same(file.tensors, tensors)
    assert set(file.tensors) == set(tensors)
    ref = open_tensor(f"{folder / '__1_0.distcp'}::half")
    assert ref.label == f"{folder}::half"
    places = [ref.place for ref in file.tensors.values()]
    assert len(set(places)) == len(places)


def sentence(folder, error=CorruptFileError):
    with pytest.raises(error) as caught:
        open_model(folder)
    return str(caught.value).removeprefix(str(folder)).lstrip("/:. ")


def test_ranks_that_are_missing(tmp_path):
    folder = small()[0].write(tmp_path / "x")
    (folder / "__1_0.distcp").unlink()
    assert sentence(folder, FileError) == (
        "its index names __1_0.distcp, which is missing; copy the files of all ranks into it."
    )
    (folder / "__0_0.distcp").unlink()
    assert "names __0_0.distcp, __1_0.distcp, which are missing" in sentence(folder, FileError)
    with pytest.raises(FileError, match="there is no such file"):
        open_file(folder / "__0_0.distcp")


def test_a_file_that_is_cut(tmp_path):
    folder = small()[0].write(tmp_path / "x")
    last = folder / "__1_0.distcp"
    last.write_bytes(last.read_bytes()[:-1])
    assert "but its piece of half should reach byte" in sentence(folder)


def test_files_outside_of_the_folder(tmp_path):
    (tmp_path / "y").mkdir()
    for outside in ("../y/a.distcp", "/etc/passwd", "a/../../y", "", "a\\b", "nul\0"):
        writer = Writer()
        writer.tensor("x", torch.ones(2))
        where = next(iter(writer.places.values()))
        where.relative_path = outside
        said = sentence(writer.write(tmp_path / "x"))
        assert "as a file that belongs to it, but such files lie beside it" in said, outside
    folder = small()[0].write(tmp_path / "z")
    (folder / "__1_0.distcp").rename(tmp_path / "y" / "a")
    (folder / "__1_0.distcp").symlink_to(tmp_path / "y" / "a")
    with pytest.raises(UnsupportedFileError, match=r"__1_0.distcp is a link to a place outside of"):
        open_file(folder)


def test_files_in_folders_below(tmp_path):
    writer = Writer()
    writer.tensor("x", torch.ones(2), [((0,), (2,), "rank0/a.distcp")])
    assert_same(open_model(writer.write(tmp_path / "x")).tensors, {"x": torch.ones(2)})


def test_bytes_that_were_transformed_are_not_read(tmp_path):
    writer = Writer()
    writer.tensor("x", torch.ones(2), transform_descriptors=["zstd"])
    writer.tensor("y", torch.ones(2))
    tensors = open_model(writer.write(tmp_path / "x")).tensors
    assert tensors["x"].unreadable == "its bytes are transformed (zstd)"
    assert_same({"y": tensors["y"]}, {"y": torch.ones(2)})


def read_all(folder):
    for ref in open_model(folder).tensors.values():
        ref.read()


def test_an_index_and_files_that_do_not_belong_together(tmp_path):
    def changed(change):
        writer = Writer()
        writer.tensor("x", torch.ones(4), [((0,), (2,), "a.distcp"), ((2,), (2,), "b.distcp")])
        writer.tensor("one", torch.ones(4))
        places = {key.fqn + str(key.offset): value for key, value in writer.places.items()}
        change(writer, {k.replace("torch.Size", ""): v for k, v in places.items()})
        folder = writer.write(tmp_path / "x")
        with pytest.raises(CorruptFileError) as caught:
            read_all(folder)
        return str(caught.value)

    def over(writer, places):
        writer.tensor("two", torch.zeros(3))
        info = next(v for k, v in writer.places.items() if k.fqn == "two")
        info.offset = 8

    def other_dtype(writer, places):
        writer.described["one"].properties.dtype = torch.float64

    def other_shape(writer, places):
        writer.files["b.distcp"] = saved(torch.ones(3))
        places["x([2])"].length = len(writer.files["b.distcp"])

    def no_tensor(writer, places):
        writer.files["b.distcp"] = saved({"a": torch.ones(2)})
        places["x([2])"].length = len(writer.files["b.distcp"])

    def no_archive(writer, places):
        writer.files["b.distcp"] = bytes(places["x([2])"].length)

    def not_placed(writer, places):
        del writer.places[next(key for key in writer.places if key.fqn == "one")]

    def minus(writer, places):
        places["one([0])"].offset = -1

    assert "its pieces of one and two overlap in __0_0.distcp" in changed(over)
    assert "its piece of one is float32 [4], where the index describes float64 [4]" in changed(
        other_dtype
    )
    assert "its piece of x is float32 [3], where the index describes float32 [2]" in changed(
        other_shape
    )
    assert "there is no tensor at byte 0, where its piece of x should be" in changed(no_tensor)
    assert "there is no tensor at byte 0" in changed(no_archive)
    assert "describes other pieces of the tensor one than it has places for" in changed(not_placed)
    assert "does not say where the tensor one lies" in changed(minus)


def test_what_is_no_index(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    for data in (pickle.dumps([1, 2]), whole(name("torch", "Metadata") + b")\x81")):
        (folder / ".metadata").write_bytes(data)
        assert "it is not the index of a torch.distributed checkpoint" in sentence(folder)
    (folder / ".metadata").write_bytes(b"\n[Finder]\n")  # some other program's
    assert "a directory without a checkpoint in it" in sentence(folder, UnsupportedFileError)
    (folder / ".metadata").unlink()
    (folder / ".metadata").mkdir()
    assert "a directory without a checkpoint in it" in sentence(folder, UnsupportedFileError)


def test_nothing_of_an_index_is_run(tmp_path):
    writer = Writer()
    writer.tensor("x", torch.ones(2))
    folder = writer.write(tmp_path / "x")
    index = (folder / ".metadata").read_bytes()
    assert index.startswith(b"\x80\x04\x95")
    call = b"cos\nmkdir\n" + text(str(tmp_path / "made")) + b"\x85R0"
    (folder / ".metadata").write_bytes(b"\x80\x04" + call + index[11:])
    assert_same(open_model(folder).tensors, {"x": torch.ones(2)})
    assert not Path(tmp_path / "made").exists()


def test_more_ranks_than_files_may_be_open(tmp_path):
    writer = Writer()
    tensor = torch.arange(300.0)
    writer.tensor("x", tensor, [((at,), (3,), f"__{at}_0.distcp") for at in range(0, 300, 3)])
    for number in range(100):
        writer.tensor(f"y{number}", tensor[number:], [((0,), (300 - number,), f"{number}.distcp")])
    folder = writer.write(tmp_path / "x")
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90))\n"
        "from bncli.loaders import open_file\n"
        "print(sum(float(ref.read().sum()) for ref in open_file(sys.argv[1]).tensors.values()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], check=True, capture_output=True, text=True
    )
    expected = sum(range(300)) + sum(sum(range(number, 300)) for number in range(100))
    assert float(done.stdout) == expected


def test_small_pieces_do_not_become_much_memory(tmp_path):
    """An expanded tensor stores one element; a few may be many, and not all of these."""
    writer = Writer()
    for number in range(12):
        long = torch.zeros(1).expand(4_000_000)
        writer.tensor(f"x{number}", long)
    assert len(writer.files["__0_0.distcp"]) < 20_000
    refs = open_file(writer.write(tmp_path / "x")).tensors.values()
    readable = [ref for ref in refs if not ref.unreadable]
    assert 1 <= len(readable) <= 2
    assert not readable[0].read().any()
    assert {ref.unreadable for ref in refs} == {
        "", "the pieces of the tensors are far smaller than these",
    }  # fmt: skip
