"""Batches as the data give them: tensors, arrays, tuples, dictionaries, and what is none."""

from __future__ import annotations

from collections import UserDict
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from bncli.errors import ModelError
from bncli.live.batch_forms import BatchForm, batch_crc, batch_digest

X = torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2)
LABELS = torch.tensor([0, 1])


class Pair(NamedTuple):
    image: torch.Tensor
    label: torch.Tensor


def form(raw: Any, key: str | None = None, dtype: str | None = None, **how):
    """A batch from what the data gave."""
    return BatchForm(key, dtype).batch(raw, "batch 1 of x.py:data", **how)


def refusal(raw: Any, key: str | None = None) -> str:
    """The sentence for a batch, after its label."""
    with pytest.raises(ModelError) as caught:
        form(raw, key)
    label, sentence = str(caught.value).split(": ", 1)
    assert label == "batch 1 of x.py:data"
    assert sentence.isprintable()
    return sentence


@pytest.mark.parametrize(
    "raw",
    [X, (X, LABELS), [X], Pair(X, LABELS), ({"image": X}, LABELS)],
    ids=["tensor", "tuple", "list", "named", "dictionary first"],
)
def test_the_input_of_a_batch(raw):
    batch = form(raw)
    given = batch.args[0] if batch.args else batch.kwargs["image"]
    assert given is X
    assert batch.whole is raw
    assert (batch.samples, batch.label) == (2, "batch 1 of x.py:data")


def test_arrays_are_taken():
    for array in (
        X.numpy(),
        X.numpy()[::-1],
        X.numpy().astype(">f4"),
        np.broadcast_to(X[0], (5, 3, 2, 2)),
    ):
        (given,) = form(array).args
        assert given.dtype == torch.float32
        assert given.tolist() == array.tolist()
    assert form({"x": X.numpy()}).kwargs["x"].equal(X)
    assert refusal(np.array(["a", "b"])) == "PyTorch has no dtype <U1."
    assert refusal(np.array([None])) == "PyTorch has no dtype object."


def test_a_key():
    batch = form({"mask": LABELS, "image": X}, "image")
    assert batch.args[0] is X
    assert batch.kwargs == {}
    assert form((LABELS, X), "1").args[0] is X
    assert form((UserDict(image=X), LABELS), "image").args[0] is X
    assert form(X, "image").args[0] is X  # a batch that is the input has no keys
    assert form((X, LABELS), "image").args[0] is X


def test_a_dictionary_is_keyword_arguments():
    raw = UserDict(pixel_values=X, labels=LABELS, names=["a", "b"], flag=True)
    batch = form(raw)
    assert batch.args == ()
    assert list(batch.kwargs) == ["pixel_values", "labels", "names", "flag"]
    assert batch.kwargs["pixel_values"] is X
    assert batch.kwargs["names"] == ["a", "b"]
    assert batch.whole is raw
    assert batch.samples == 2


def test_several_numbers_are_positional_arguments():
    found = form((X, LABELS, "a name"), ("1", "0"), "float64")
    assert found.kwargs == {}
    labels, x = found.args
    assert (labels.dtype, x.dtype) == (torch.int64, torch.float64)
    assert torch.equal(labels, LABELS)
    assert torch.equal(x, X.double())
    assert refusal((X, LABELS), ("0", "2")) == (
        "--input-key 2, but it has 2 parts, counted from 0."
    )


def test_several_keys_are_keyword_arguments():
    raw = UserDict(input_ids=LABELS, mask=X, labels=LABELS)
    for given in (raw, (raw, LABELS)):
        batch = BatchForm(("mask", "input_ids")).batch(given, "b")
        assert batch.args == ()
        assert list(batch.kwargs) == ["mask", "input_ids"]
        assert batch.kwargs["mask"] is X
        assert batch.whole is given
    with pytest.raises(
        ModelError, match=r"^b: there is no 'x' in it; it has input_ids, mask, labels"
    ):
        BatchForm(("mask", "x")).batch(raw, "b")


def test_conversion():
    for dtype in (torch.uint8, torch.int64, torch.float64, torch.bool, torch.float16):
        (given,) = form(X.to(dtype), dtype="float32").args
        assert given.equal(X.to(dtype).float())
    assert form(X, dtype="bfloat16").args[0].dtype == torch.bfloat16
    ids = torch.tensor([[1, 2]])
    batch = form({"input_ids": ids, "pixel_values": X.double()}, dtype="float32")
    assert batch.kwargs["input_ids"] is ids
    assert batch.kwargs["pixel_values"].dtype == torch.float32
    assert form(X.to(torch.complex64), dtype="float32").args[0].dtype == torch.complex64


def test_a_copy_has_tensors_of_its_own():
    batch = form((X, LABELS), copy=True)
    batch.args[0].zero_()
    assert X.sum() > 0
    batch = form({"x": X}, copy=True)
    batch.kwargs["x"].zero_()
    assert X.sum() > 0


@pytest.mark.parametrize(
    ("raw", "key", "said"),
    [
        ("text", None, "it is a str; a batch is a tensor, a tuple with the input first, or a dict"),
        (None, None, "it is None; a batch is"),
        (3, None, "it is an int; a batch is"),
        ([[X, X], LABELS], None, "it is a list; a batch is"),
        ((), None, "it is an empty tuple."),
        ([], "0", "it is an empty list."),
        ({}, None, "there is no tensor in it."),
        ({"names": ["a"]}, None, "there is no tensor in it."),
        ({3: X}, None, "its keys are not names (an int); choose the input with --input-key."),
        ({"mask": X, "pic\x1bture": X}, "image",
         r"there is no 'image' in it; it has mask, pic\x1bture."),
        ({"image": "a.png"}, "image", "it is a str; a batch is"),
        ((X, LABELS), "2", "--input-key 2, but it has 2 parts, counted from 0."),
        (torch.tensor(3.0), None, "its tensor is a single number, without a batch axis."),
        (torch.ones(0, 3), None, "its tensor has the shape [0, 3] and holds no samples."),
        ({"x": torch.ones(2, 0)}, None, "its tensor has the shape [2, 0] and holds no samples."),
    ],
)  # fmt: skip
def test_what_is_no_batch(raw, key, said):
    assert refusal(raw, key).startswith(said)


def test_the_sum_of_a_batch():
    first = batch_crc(form((X, LABELS)))
    assert batch_crc(form((X.clone(), LABELS + 1))) == first
    assert batch_crc(form(X.to(memory_format=torch.channels_last))) == first
    for other in (X + 1, X.double(), X.reshape(2, 3, 4), X.flip(0)):
        assert batch_crc(form(other)) != first
    words = {"a": X, "b": LABELS}
    assert batch_crc(form(words)) == batch_crc(form(dict(reversed(words.items()))))
    assert batch_crc(form(words)) != batch_crc(form({"a": X, "b": LABELS + 1}))


def test_a_digest_tells_batches_apart_that_differ_in_anything():
    batches = [X, X.double(), X.reshape(len(X), -1), X + 1, {"a": X}, {"a": X, "b": X}]
    digests = [batch_digest(form(each)) for each in batches]
    assert digests[0] == digests[4] == batch_digest(form((X.clone(), LABELS)))
    assert len({*digests}) == len(batches) - 1
