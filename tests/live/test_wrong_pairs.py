"""Which way a metric is better, told by outputs that are paired with the wrong samples."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from bncli.errors import ModelError
from bncli.live.wrong_pairs import WrongPairs, clearest


def answers(batches=6, samples=8, right=0.9, seed=0):
    """Outputs of a classifier that is right for this share of samples, and the labels."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(batches):
        labels = torch.randint(0, 4, (samples,), generator=generator)
        keeps = torch.rand(samples, generator=generator) < right
        said = torch.where(keeps, labels, torch.randint(0, 4, (samples,), generator=generator))
        yield 3 * functional.one_hot(said, 4).float(), labels


def accuracy(output, labels):
    return float((output.argmax(1) == labels).float().mean())


def loss(output, labels):
    return functional.cross_entropy(output, labels)


def worse(metric, batches):
    pairs = WrongPairs(metric)
    for output, batch in batches:
        pairs(output, batch)
    return pairs.worse


def test_it_is_the_metric_itself():
    pairs = WrongPairs(accuracy)
    for output, labels in answers():
        assert pairs(output, labels) == accuracy(output, labels)


@pytest.mark.parametrize("metric", [accuracy, loss])
@pytest.mark.parametrize("number", [2, 6])
def test_it_is_the_mean_of_what_wrong_pairs_have_more(metric, number):
    batches = [*answers(number, 32)]
    first = batches[0][0]
    others = [first.roll(1, 0), *[first] * (number - 1)]
    wanted = [
        float(metric(other, labels)) - float(metric(output, labels))
        for other, (output, labels) in zip(others, batches, strict=True)
    ]
    assert worse(metric, batches) == pytest.approx(sum(wanted) / number, rel=1e-6)
    assert (worse(metric, batches) > 0) is (metric is loss)


@pytest.mark.parametrize(("number", "most"), [(1, 4), (2, 2), (4, 1), (20, 1)])
def test_chance_rarely_tells_anything(number, most):
    told = [worse(accuracy, answers(number, 32, 0.0, seed)) is not None for seed in range(20)]
    assert sum(told) <= most


def test_samples_that_are_alike_tell_nothing():
    same = torch.zeros(8, dtype=torch.int64)
    assert worse(accuracy, [(functional.one_hot(same, 4).float(), same)] * 6) is None


def test_batches_that_are_sorted_by_class_are_paired_with_those_of_another():
    labels = [torch.full((8,), number % 4) for number in range(6)]
    batches = [(functional.one_hot(each, 4).float(), each) for each in labels]
    assert worse(accuracy, batches) < 0
    assert worse(loss, batches) > 0


def test_a_single_sample_is_paired_with_the_first_one():
    batches = [*answers(60)]
    alone = [(output[:1], labels[:1]) for output, labels in batches]
    assert worse(loss, alone) > 0
    assert worse(loss, alone[:1]) is None


def test_larger_batches_than_the_first_are_paired_with_themselves():
    (small, few), *rest = answers()
    assert worse(accuracy, [(small[:3], few[:3]), *rest]) < 0


def test_what_a_model_writes_into_later_is_copied():
    pairs, kept = WrongPairs(accuracy), torch.empty(8, 4)
    for output, labels in answers():
        pairs(kept.copy_(output), labels)
    assert pairs.worse == worse(accuracy, answers())


def test_the_clearest_of_several_passes_counts():
    clear, silent, against = WrongPairs(accuracy), WrongPairs(accuracy), WrongPairs(loss)
    for pairs, right in ((clear, 1.0), (silent, 0.0), (against, 1.0)):
        for output, labels in answers(right=right):
            pairs(output, labels)
    assert clearest(silent, clear) is clear
    assert clearest(silent) is None
    assert clearest(clear, against) is None


@pytest.mark.parametrize("wrap", [lambda y: {"out": y}, lambda y: (y, {"aux": y}), lambda y: [y]])
def test_outputs_of_many_tensors_move_together(wrap):
    def inner(output, labels):
        while not isinstance(output, torch.Tensor):
            output = output["out"] if isinstance(output, dict) else output[0]
        return loss(output, labels)

    batches = [*answers()]
    assert worse(inner, [(wrap(y), t) for y, t in batches]) == worse(loss, batches)


@pytest.mark.parametrize("output", [torch.tensor(1.0), "text", {"out": None}])
def test_outputs_whose_samples_are_not_known_tell_nothing(output):
    assert worse(lambda *_: 1.0, [(output, None)] * 6) is None


def test_a_metric_that_fails_on_them_tells_nothing_and_is_not_asked_again():
    calls = []

    def metric(output, labels):
        calls.append(accuracy(output, labels))
        if calls[-1] < 0.5:
            raise ValueError("no such pairs")
        return calls[-1]

    assert worse(metric, answers(right=1.0)) is None
    assert len(calls) == 7


def test_a_metric_that_fails_as_it_is_says_so():
    def metric(*_):
        raise ModelError("no")

    with pytest.raises(ModelError):
        WrongPairs(metric)(torch.zeros(2, 2), None)


def test_what_is_not_a_number_tells_nothing():
    assert worse(lambda *_: float("nan"), answers()) is None
