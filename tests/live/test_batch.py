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


def some(*args, samples=2, label="0", **kwargs):
    return Batch(args, kwargs, None, samples, label)


def images(*samples):
    return [
        some(torch.full((n, 3), float(n)), "text", samples=n, label=str(i), mask=[torch.ones(n)])
        for i, n in enumerate(samples)
    ]


def sizes(batches, most):
    return [each.samples for each in joined(batches, most)]


def test_whole_numbers_of_three_axes_are_an_input_too():
    found = model_input(some(torch.full((2, 3, 4), 7, dtype=torch.uint8)))
    assert found.dtype == torch.float32
    assert (found == 7).all()


def test_a_joined_batch_holds_the_samples_in_their_order():
    (one,) = joined(images(2, 3), 5)
    assert one.args[0][:, 0].tolist() == [2, 2, 3, 3, 3]
    assert one.args[1] == "text"
    assert one.kwargs["mask"][0].shape == (5,)
    assert one.label == "0 to 1 as one batch"


def test_what_all_batches_share_stays_one():
    table = torch.arange(7)
    batches = [some(torch.ones(2, 3), table.clone()) for _ in range(2)]
    (one,) = joined(batches, 4)
    assert one.args[1].tolist() == table.tolist()


def test_batches_that_differ_otherwise_are_not_joined():
    first = some(torch.ones(2, 3))
    for other in (
        some(torch.ones(2, 4)),  # another size
        some(torch.ones(2, 3).half()),
        some(torch.ones(2, 3, 1)),
        some([torch.ones(2, 3)]),
        some(torch.ones(2, 3), x=None),
        some(torch.ones(3, 3)),  # a batch axis of another size than it says
    ):
        assert sizes([first, other], 9) == [2, 2]
    assert sizes([some(torch.ones(2, 3), "a"), some(torch.ones(2, 3), "b")], 9) == [2, 2]
    unknown = object()
    assert sizes([some(torch.ones(2, 3), unknown) for _ in range(2)], 9) == [2, 2]
