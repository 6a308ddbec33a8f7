"""Files of tensors as batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bncli.errors import BncliError, FileError, MissingTensorError, TensorError
from bncli.live.batch_forms import BatchForm
from bncli.live.data_files import TensorFiles

X = np.arange(5 * 3 * 2 * 2, dtype=np.float32).reshape(5, 3, 2, 2)


def batches(*specs: str, key: str | None = None, size: int | None = None, dtype: str | None = None):
    """The batches of files, twice the same."""
    source = TensorFiles(specs, BatchForm(key, dtype), size)
    found, again = list(source.batches()), list(source.batches())
    assert len(found) == source.length
    for one, other in zip(found, again, strict=True):
        assert one.label == other.label
        assert torch.equal(one.args[0], other.args[0])
        one.args[0].zero_()  # each pass has tensors of its own
    return again


def refusal(*specs: str, error: type[BncliError], **how) -> str:
    with pytest.raises(error) as caught:
        batches(*specs, **how)
    return str(caught.value)


def test_each_file_is_a_batch(save):
    save("x.npy", X)
    save("x.npz", image=X)
    save("x.pt", torch.from_numpy(X))
    save_file({"image": torch.from_numpy(X)}, "x.safetensors")
    save("dict.pt", {"image": torch.from_numpy(X), "scanner": "A", "number": 3})
    names = ["x.npy", "x.npz", "x.pt", "x.safetensors", "dict.pt"]
    found = batches(*names)
    assert [batch.label.partition("::")[0] for batch in found] == names
    for batch in found:
        assert (batch.samples, batch.kwargs) == (5, {})
        assert batch.args[0].equal(torch.from_numpy(X))
        assert batch.whole.equal(torch.from_numpy(X))


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.uint8, torch.bool, torch.int64]
)
def test_values_keep_their_dtype(save, dtype):
    values = torch.from_numpy(X).to(dtype)
    (batch,) = batches(save("x.pt", values))
    assert batch.args[0].dtype == dtype
    assert torch.equal(batch.args[0], values)
    (batch,) = batches("x.pt", dtype="float32")
    assert torch.equal(batch.args[0], values.float())


def test_files_are_cut_and_never_joined(save):
    save("a.npy", X)
    save("b.npy", X[:2])
    found = batches("a.npy", "b.npy", size=3)
    assert [(batch.label, batch.samples) for batch in found] == [
        ("a.npy[0:3]", 3), ("a.npy[3:5]", 2), ("b.npy", 2),
    ]  # fmt: skip
    assert torch.cat([batch.args[0] for batch in found[:2]]).equal(torch.from_numpy(X))


def test_a_pattern_in_natural_order(save):
    for number in (10, 9, 1):
        save(f"batch{number}.npy", X + number)
    save("other.npy", X)
    found = batches("batch*.npy", "batch1.npy", "other.npy")
    assert [batch.label for batch in found] == [
        "batch1.npy",
        "batch9.npy",
        "batch10.npy",
        "other.npy",
    ]
    assert refusal("none*.npy", error=FileError) == "none*.npy: no file fits this pattern."


def test_the_input_among_several_tensors(save):
    image, mask = torch.from_numpy(X), torch.ones(5, 2)
    weights = torch.ones(7)
    save("b.pt", {"mask": mask, "image": image, "weights": weights})
    for found in (batches("b.pt", key="image", size=2), batches("b.pt::image", size=2)):
        assert found[1].args[0].equal(image[2:4])
        whole = found[1].whole
        assert list(whole) == ["mask", "image", "weights"]
        assert len(whole) == 3
        assert whole["image"] is not None
        assert whole["image"].equal(image[2:4])
        assert whole["mask"].equal(mask[2:4])
        assert whole["weights"].equal(weights)
    assert refusal("b.pt", error=MissingTensorError) == (
        "b.pt: it holds 3 tensors (mask, image, weights); say which is the input with --input-key, "
        "such as --input-key mask."
    )
    assert refusal("b.pt", error=MissingTensorError, key="imge") == (
        "b.pt: there is no tensor 'imge' in it; did you mean 'image'?"
    )
    save("x.npy", X)
    assert len(batches("b.pt", "x.npy", key="image")) == 2  # the only one, which has no name
    save("c.pt", {"image": image})
    assert refusal("c.pt", error=MissingTensorError, key="x").startswith(
        "c.pt: there is no tensor 'x'"
    )


def test_several_tensors_of_a_file_are_keyword_arguments(save):
    image, mask = torch.from_numpy(X), torch.ones(5, 2)
    save("b.pt", {"mask": mask, "image": image, "label": torch.ones(5)})
    batch = list(TensorFiles(("b.pt",), BatchForm(("image", "mask")), 2).batches())[1]
    assert batch.args == ()
    assert list(batch.kwargs) == ["image", "mask"]
    assert batch.kwargs["image"].equal(image[2:4])
    assert batch.kwargs["mask"].equal(mask[2:4])
    assert batch.samples == 2
    assert list(batch.whole) == ["mask", "image", "label"]


def test_a_tuple_that_was_saved(save):
    save("pair.pt", (torch.from_numpy(X), torch.ones(5)))
    (batch,) = batches("pair.pt")
    assert batch.args[0].equal(torch.from_numpy(X))
    for part in (1, -1, "1"):
        assert batch.whole[part].equal(torch.ones(5))
    image, label = batch.whole
    assert image.equal(torch.from_numpy(X))
    assert label.equal(torch.ones(5))
    assert len(batch.whole) == 2
    assert batch.whole[1:][0].equal(label)
    (batch,) = batches("pair.pt", key="1")
    assert batch.args[0].equal(torch.ones(5))
    save("one.pt", (torch.from_numpy(X),))
    (batch,) = batches("one.pt")
    assert batch.whole[0].equal(torch.from_numpy(X))
    both = list(TensorFiles(("pair.pt",), BatchForm(("1", "0")), 2).batches())[1]
    assert [len(each) for each in both.args] == [2, 2]  # by position, as from a DataLoader
    assert both.args[1].equal(torch.from_numpy(X[2:4]))


def test_a_part_that_a_batch_lacks_is_named(save):
    pair = (torch.from_numpy(X), torch.ones(5))
    save("pair.pt", pair)
    save("named.pt", {"image": pair[0], "1": pair[1]})
    (batch,), (named,) = batches("pair.pt"), batches("named.pt", key="image")
    lacking = "there is no batch[2]; the batch has 2 parts, counted from 0"
    with pytest.raises(IndexError) as caught:
        batch.whole[2]
    assert str(caught.value) == lacking
    with pytest.raises(LookupError, match=r"there is no batch\['mask'\]; the batch has 2 parts"):
        batch.whole["mask"]
    with pytest.raises(KeyError) as caught:
        named.whole[1]
    assert str(caught.value) == "there is no batch[1]; the batch has 'image', '1'"


def test_what_is_beside_the_input_is_read_when_it_is_asked_for(save, monkeypatch):
    from bncli.live import data_files

    save("b.npz", image=X, mask=X[:, 0])
    source = TensorFiles(("b.npz",), BatchForm("image"), None)
    real, read = data_files._read, []
    monkeypatch.setattr(
        data_files, "_read", lambda ref, cut: read.append(ref.name) or real(ref, cut)
    )
    (batch,) = source.batches()
    assert read == ["image"]
    assert batch.whole["mask"].shape == (5, 2, 2)
    assert read == ["image", "mask"]


def test_what_is_no_batch(save, folder):
    save("empty.npy", np.ones((0, 3)))
    save("number.npy", np.float32(3))
    assert refusal("empty.npy", error=TensorError) == (
        "empty.npy: shape [0, 3] holds no samples; the first axis is the batch."
    )
    assert refusal("number.npy", error=TensorError).startswith("number.npy: shape [] holds no sam")
    save("names.npy", np.array(["a"]))
    refusal("names.npy", error=BncliError)
    assert refusal("nothing.npy", error=FileError) == "nothing.npy: there is no such file."
    (folder / "x.txt").write_text("not an array", encoding="utf-8")
    assert refusal("x.txt", error=FileError).startswith("x.txt: it is text that begins with")


def test_a_file_without_tensors(save):
    save("none.pt", {"epoch": 3})
    with pytest.raises(MissingTensorError, match=r"^none.pt: there is no tensor in it\.$"):
        batches("none.pt")


def test_a_file_that_changes_between_the_passes(save):
    save("x.npy", X)
    source = TensorFiles(("x.npy",), BatchForm(), None)
    assert len(list(source.batches())) == 1
    save("x.npy", X[:2])
    with pytest.raises(FileError, match=r"^x.npy: "):
        list(source.batches())


def test_files_of_others_are_not_opened(save):
    for i in range(4):
        save(f"b{i}.npy", X + i)
    for i in (0, 2, 3):
        (Path(f"b{i}.npy")).write_bytes(b"no tensor")
    source = TensorFiles(("b*.npy",), BatchForm(), None, mine=lambda i: i == 1)
    none, batch, *rest = source.batches(lambda i: i == 1)
    assert batch.args[0].equal(torch.from_numpy(X + 1))
    assert (none, rest, source.length) == (None, [None, None], 4)
    assert source.inputs_of(lambda i: i == 1) == ["b1.npy"]
