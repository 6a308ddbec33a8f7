"""--expect KIND:GLOB, as it is typed and as it is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bncli.commands.compare_checkpoints.expectations import expectations, parse_expected
from bncli.errors import UsageError
from bncli.model.changes import Comparison, Found, How, LayerVersion, State
from bncli.report import Certainty
from bncli.rulebook.changes import Expected


def layer(name: str, other: str, state: State) -> LayerVersion:
    return LayerVersion(name, other, How.NAME, Certainty.CERTAIN, Found(state))


COMPARED = Comparison(
    "a.pt",
    "b.pt",
    "",
    "",
    (
        layer("backbone.bn1", "norm1", State.TRAINED),
        layer("backbone.bn2", "norm2", State.IDENTICAL),
        layer("", "extra", State.LOST),
    ),
)


def failing(*texts: str) -> list[str]:
    asked = expectations(parse_expected(texts), COMPARED)
    return [
        each.name or each.other_name
        for each in COMPARED.layers
        if any(one.fails(each) for one in asked)
    ]


def test_a_name_in_either_file_is_meant():
    assert failing("frozen:backbone.*") == ["backbone.bn1"]
    assert failing("frozen:norm?") == ["backbone.bn1"]
    assert failing("trained:bn?", "frozen:extra") == ["backbone.bn2", "extra"]
    assert failing("trained:bn1", "identical:norm2") == []


def test_a_full_name_means_one_layer():
    both = Comparison(
        "a.pt",
        "b.pt",
        "",
        "",
        (layer("bn1", "bn1", State.TRAINED), layer("layer1.bn1", "layer1.bn1", State.TRAINED)),
    )
    for glob, count in (("bn1", 1), ("layer1.bn1", 1), ("bn?", 2), ("*", 2)):
        (asked,) = expectations([(Expected.FROZEN, glob)], both)
        assert sum(map(asked.fails, both.layers)) == count


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("frozen", "--expect frozen: write KIND:GLOB, such as 'frozen:backbone.*'."),
        ("frozen:", "--expect frozen:: write KIND:GLOB, such as 'frozen:backbone.*'."),
        ("forzen:*", "--expect forzen:*: there is no kind 'forzen'; did you mean frozen?"),
        (
            "x:*",
            "--expect x:*: there is no kind 'x'; it takes frozen, identical, trained or folded.",
        ),
    ],
)
def test_what_is_no_expectation(text, said):
    with pytest.raises(UsageError) as raised:
        parse_expected([text])
    assert str(raised.value) == said


def test_several_patterns_and_names_of_convolutions():
    with pytest.raises(UsageError, match="give --expect once for each GLOB"):
        expectations([(Expected.FROZEN, "backbone.*,norm?")], COMPARED)
    front = replace(COMPARED.layers[0], before_name="backbone.conv1")
    with pytest.raises(UsageError, match=r"conv1 is not a BatchNorm layer; write 'backbone.bn1'"):
        expectations([(Expected.FROZEN, "conv1")], replace(COMPARED, layers=(front,)))


def test_a_pattern_that_fits_no_layer():
    with pytest.raises(UsageError, match=r"frozen:backbon\.\*: no BatchNorm layer .* 'backbone"):
        expectations([(Expected.FROZEN, "backbon.*")], COMPARED)
