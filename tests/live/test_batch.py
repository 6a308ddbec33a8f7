"""A batch as a model takes it: its input, and batches joined to larger ones."""

from __future__ import annotations

import torch

from bncli.live.batch import Batch, inputs_of, joined, model_input, with_input


def batch(*args, **kwargs):
    first = next(each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor))
    return Batch(args, kwargs, args, len(first), "0")


def test_the_inputs_are_tensors_of_two_axes_floating_point_first():
    whole, image, label = torch.zeros(2, 3, dtype=torch.int64), torch.rand(2, 3), torch.zeros(2)
    assert [id(each) for each in inputs_of(batch(label, whole, image, "text"))] == [
        id(image),
        id(whole),
    ]
    assert model_input(batch(whole, image=image)) is image


def test_the_input_alone_is_mapped():
    image, mask = torch.rand(2, 3), torch.rand(2, 3)
    changed = with_input(batch(image, mask=mask), lambda x: x * 255)
    assert torch.equal(changed.args[0], image * 255)
    assert changed.kwargs["mask"] is mask


def test_a_batch_without_an_input_stays():
    labels = batch(torch.zeros(2))
    assert with_input(labels, lambda x: x + 1) is labels


def test_batches_are_joined_up_to_the_room():
    parts = [batch(torch.full((n, 2), float(n)), mask=torch.full((n, 1), n)) for n in (3, 2, 4, 1)]
    sizes = [
        (each.samples, len(each.args[0]), len(each.kwargs["mask"])) for each in joined(parts, 5)
    ]
    assert sizes == [(5, 5, 5), (5, 5, 5)]
    values = torch.cat([each.args[0] for each in joined(parts, 5)])
    assert torch.equal(values, torch.cat([each.args[0] for each in parts]))
