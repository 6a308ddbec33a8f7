"""The sentences on two files."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bncli.commands.compare_checkpoints.words import (
    nothing_in_common,
    remarks,
    scope,
    specs,
    subject,
    verdict,
)
from bncli.model.changes import (
    Comparison,
    Found,
    How,
    LayerVersion,
    Measures,
    OtherWeights,
    Same,
    State,
)
from bncli.report import Certainty
from bncli.rulebook.changes import Expectation, Expected


def version(
    name, state=State.IDENTICAL, *, batches=None, how: How | None = How.NAME, other=None, **numbers
):
    return LayerVersion(
        name,
        (name if other is None else other) if how is not None else (other or ""),
        how,
        Certainty.LIKELY,
        Found(state, numbers=numbers),
        Measures(batches=batches),
        before=Same.SAME,
    )


def compared(*layers, **more) -> Comparison:
    given = {"path": "a.pt", "other_path": "b.pt", "part": "", "other_part": ""}
    return Comparison(layers=layers, **{**given, **more})


def said(*layers) -> str:
    return verdict(layers, {})


def some(state, number, start=0, **more):
    return [version(f"{state.value}{at + start}", state, **more) for at in range(number)]


def test_the_whole_in_one_sentence():
    layers = [
        *some(State.TRAINED, 11, batches=40),
        *some(State.IDENTICAL, 8),
        version("layer1.0.bn1", State.STATISTICS),
    ]
    assert said(*layers) == (
        "in layer1.0.bn1 the statistics moved and the weights did not; 11 of 20 layers were "
        "trained on for 40 batches, 8 are identical, bit for bit"
    )


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        (some(State.IDENTICAL, 1), "identical0 is identical, bit for bit"),
        (some(State.IDENTICAL, 2), "both layers are identical, bit for bit"),
        (some(State.IDENTICAL, 53), "all 53 layers are identical, bit for bit"),
        (
            some(State.ROUNDED, 3, dtype="float16"),
            "all 3 layers are equal up to the rounding of float16",
        ),
        (
            [*some(State.ROUNDED, 1, dtype="float16"), *some(State.ROUNDED, 1, start=1)],
            "both layers are equal up to rounding",
        ),
        (some(State.TRAINED, 1, batches=1), "trained0 was trained on for 1 batch"),
        (some(State.TRAINED, 2), "both layers were trained on"),
        (
            [*some(State.TRAINED, 1, batches=40), *some(State.TRAINED, 1, start=1, batches=42)],
            "both layers were trained on for 40 to 42 batches",
        ),
        (
            some(State.TRAINED, 2, batches=-40),
            "both layers were trained in between, the counter 40 lower in the second file",
        ),
        (some(State.COUNTER, 1), "counter-moved0 differs in the counter alone"),
        (some(State.FOLDED, 3, how=None), "all 3 layers were folded into the layers before them"),
        (
            some(State.FOLDED, 1, how=None, bias_known=False),
            "folded0 was folded into the layer before it, and 1 bias could not be compared",
        ),
        (
            some(State.FOLDED, 1, how=None, fault="mean", **{"in": "first"}),
            "folded0 was folded into the layer before it in the first file, wrongly",
        ),
        (
            [*some(State.FOLDED, 2, how=None), *some(State.FOLDED, 1, start=2, fault="twice")],
            "all 3 layers were folded into the layers before them, 1 of them wrongly",
        ),
        (
            some(State.ORDER, 2, cause="exchanged"),
            "in both layers the tensors are exchanged",
        ),
        (
            some(State.ORDER, 2, cause="chain"),
            "in both layers the tensors are another layer's",
        ),
        (some(State.ORDER, 2, cause="permuted"), "in both layers the order differs"),
        (
            some(State.WEIGHTS, 2, cause="before"),
            "in both layers only the weights before the layer moved",
        ),
        (
            [*some(State.RESET, 2, cause="untrained"), *some(State.RESET, 1, start=2)],
            "in all 3 layers the tensors are those of a network before training",
        ),
        (some(State.DIFFERENT, 2), "both layers differ"),
        (some(State.STATISTICS, 2), "in both layers the statistics moved and the weights did not"),
        (
            some(State.WEIGHTS, 4) + some(State.IDENTICAL, 1),
            (
                "in 4 of 5 layers the weights moved and the statistics did not; 1 of 5 layers is "
                "identical, bit for bit"
            ),
        ),
        (
            [
                *some(State.IDENTICAL, 2),
                version("gone", State.LOST, how=None),
                version("", State.LOST, how=None, other="new"),
                version("", State.LOST, how=None, other="newer"),
            ],
            (
                "2 of 5 layers are identical, bit for bit; 1 layer is in the first file alone, "
                "2 in the second file alone"
            ),
        ),
    ],
)
def test_verdict(layers, sentence):
    assert said(*layers) == sentence


def test_what_all_layers_of_a_state_share_is_said_of_them():
    swapped = [
        replace(layer, found=Found(State.CONVENTION, "weight and bias are swapped"))
        for layer in some(State.CONVENTION, 5)
    ]
    assert said(*swapped) == "in all 5 layers weight and bias are swapped"
    other = replace(swapped[0], found=Found(State.CONVENTION, "eps 0.001 is in the variance"))
    assert said(*swapped, other) == "in all 6 layers the convention differs"
    stds = [
        replace(layer, found=Found(State.CONVENTION, f"running_var holds the std, {eps}"))
        for layer, eps in zip(swapped, ("eps 0.001", "without eps"), strict=False)
    ]
    assert said(*stds) == "in both layers running_var holds the std"
    lost = [
        replace(layer, found=Found(State.LOST, f"{what} missing in the second file"))
        for layer, what in zip(swapped, ("weight, bias are", "weight is"), strict=False)
    ]
    assert said(*lost) == "in both layers tensors are missing"
    broken = [
        replace(layer, found=Found(State.IMPOSSIBLE, f"weight became NaN in channel {at}"))
        for at, layer in enumerate(some(State.IMPOSSIBLE, 2))
    ]
    assert said(*broken) == "in both layers weight became NaN"
    assert said(broken[1]) == "in impossible1 weight became NaN in channel 1"


@pytest.mark.parametrize(
    ("kinds", "sentence"),
    [
        (["frozen"], "2 of 4 layers that should be frozen are not"),
        (["trained", "identical"], "2 of 4 layers that should be identical are not; 2 of 4 layers"),
    ],
)
def test_what_was_asked_comes_first(kinds, sentence):
    layers = [*some(State.TRAINED, 2), *some(State.IDENTICAL, 2)]
    asked = [Expectation(Expected(kind), lambda _: True) for kind in kinds]
    met = [Expectation(Expected.TRAINED, lambda name: name.startswith("trained"))]
    assert verdict(layers, {}, asked).startswith(sentence)
    told = verdict(layers, {}, met)
    assert told.startswith("all 2 layers that --expect names are as it asks; 2 of 4 layers")
    assert verdict(layers[1:], {}, met).startswith("the layer that --expect names is as it asks")


def test_every_state_has_its_words():
    for state in State:
        assert "both layers " in said(*some(state, 2))


def test_subject_and_parts():
    both = compared(version("x"), version("y", how=How.NAMING), part="ema", other_part="live")
    assert specs(both) == ["a.pt::ema", "b.pt::live"]
    assert subject(both) == (
        "a.pt::ema -> b.pt::live",
        "2 BatchNorm layers matched: 1 by name, 1 by another framework's names",
    )
    assert subject(compared(version("x"), version("y", how=None))) == (
        "a.pt -> b.pt  1 of 2 BatchNorm layers matched, by name",
    )
    gone = some(State.FOLDED, 3, how=None)
    assert subject(compared(*gone)) == ("a.pt -> b.pt  3 of 3 BatchNorm layers folded",)
    assert subject(compared(*gone, version("x")))[0].endswith(
        "1 of 4 BatchNorm layers matched, 3 folded, by name"
    )
    apart = compared(version("x"), path="a" * 50 + ".pt", other_path="b" * 50 + ".pt")
    assert subject(apart)[:2] == ("a" * 50 + ".pt", f"-> {'b' * 50}.pt")
    near = compared(
        version("x"), path=f"{'d' * 50}/a.pt", other_path=f"{'d' * 50}/b.pt", part="ema"
    )
    assert subject(near)[:2] == (f"in {'d' * 50}:", "a.pt::ema -> b.pt")
    long = compared(version("x"), path="a" * 50 + ".pt")
    assert subject(long) == (f"{'a' * 50}.pt -> b.pt", "1 BatchNorm layer matched, by name")


def test_weights_that_are_not_correlated_are_said_in_the_verdict():
    layers = [version(name, State.DIFFERENT, cause="unrelated") for name in "xyz"]
    assert verdict(layers, {}) == (
        "all 3 layers differ; the weights of the two files are not correlated"
    )


def test_remarks():
    layers = (
        version("x", how=How.ORDER, other="p"),
        version("y", how=How.ORDER, other="q"),
        version("gone", State.LOST, how=None),
        version("", State.LOST, how=None, other="new"),
        version("folded", State.FOLDED, how=None),
    )
    others = OtherWeights(
        same=3, rounded=1, moved=("fc.weight",), unread=("t",), alone=("u",), other_alone=("v",)
    )
    assert remarks(compared(*layers, others=others), {"new"}) == (
        "1 layer of the first file has no partner in b.pt: gone",
        "matched by shape and order (likely): x with p and 1 more",
        (
            "other weights: 1 of 5 tensors moved (fc.weight), 1 equal up to rounding, 3 the same "
            "bit for bit, 1 could not be read (t), 1 in the first file alone (u), 1 in the "
            "second file alone (v)"
        ),
    )
    assert remarks(compared(version("x"), others=OtherWeights()), {}) == (
        "other weights: there are none",
    )
    assert remarks(compared(version("x")), {}) == ()


def test_scope():
    both = compared(version("x"), version("y"))
    assert scope(both.layers, both) == "2 BatchNorm layers"
    assert scope(both.layers[:1], both) == "1 of 2 BatchNorm layers"


def test_nothing_in_common():
    one = version("x", State.LOST, how=None)
    two = version("", State.LOST, how=None, other="y")
    assert nothing_in_common(compared()) == "there is no BatchNorm layer in a.pt or b.pt"
    assert nothing_in_common(compared(one)) == "there is no BatchNorm layer in b.pt"
    assert nothing_in_common(compared(two)) == "there is no BatchNorm layer in a.pt"
    assert nothing_in_common(compared(one, two)) == (
        "no layer of a.pt is in b.pt: the first has x, the second y"
    )
