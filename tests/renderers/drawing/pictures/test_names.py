"""Names in pictures."""

from __future__ import annotations

import pytest

from bncli.renderers.drawing.pictures.names import (
    every,
    fitted,
    shortened,
    text_width,
    told_apart,
)
from tests.renderers.drawing.pictures.examples import HOSTILE


@pytest.mark.parametrize(
    ("text", "most", "short"),
    [
        ("layer1.bn", 20, "layer1.bn"),
        ("backbone.layer1.0.bn1", 11, "backb…0.bn1"),
        ("a\nb", 10, "a\\x0ab"),
        ("abc", 1, "…"),
        ("", 5, ""),
    ],
)
def test_a_long_name_loses_its_middle(text, most, short):
    assert shortened(text, most) == short
    assert len(short) <= most


def test_any_name_is_a_short_line():
    for name in HOSTILE:
        assert len(shortened(name, 20)) <= 20
        assert shortened(name, 20).isprintable()
    assert shortened("x" * 10**7, 7) == "xxx…xxx"


STAGES = [
    f"backbone.stage{stage}.{block}.branch_main.{layer}"
    for stage in (2, 3, 4)
    for block in range(8)
    for layer in (1, 4, 6)
]
WAYS = [
    f"momentum 0.1 (0.9 in Keras) and the {kind} variance{how}"
    for kind in ("biased", "unbiased")
    for how in ("", *(f" (eps {eps} added into the kept variance)" for eps in ("1e-5", "1e-3")))
]


@pytest.mark.parametrize("most", [20, 26, 50])
@pytest.mark.parametrize("names", [STAGES, WAYS, [*STAGES, *WAYS], STAGES[:1] * 3])
def test_different_names_have_different_labels(names, most):
    labels = told_apart(names, most)
    assert len(dict(zip(names, labels, strict=True))) == len(set(labels)) == len(set(names))
    assert max(map(len, labels)) <= most
    assert all(label.isprintable() for label in labels)


def test_a_label_has_what_tells_its_name_from_others():
    assert told_apart(["layer1.bn", "layer2.bn"], 20) == ["layer1.bn", "layer2.bn"]
    assert told_apart(STAGES, 26)[:2] == ["…stage2.0.branch_main.1", "…stage2.0.branch_main.4"]
    assert told_apart(STAGES, 20)[-1] == "…ge4.7.branch_main.6"
    assert told_apart(WAYS, 50)[1] == "…and the biased variance (eps 1e-5 added into the…"
    for label, way in zip(told_apart(WAYS, 50), WAYS, strict=True):
        assert ("eps" not in way) or way.partition("eps ")[2][:4] in label
        assert ("unbiased" in label) == ("unbiased" in way)


def test_names_that_nothing_visible_tells_apart_are_numbered():
    assert told_apart(["a\n", "a\\x0a", "a\n"], 20) == ["(1) a\\x0a", "(2) a\\x0a", "(1) a\\x0a"]
    far = ["x" * 500 + letter + "x" * 500 for letter in "abc"]
    assert told_apart(far, 20) == [f"({place}) xxxxxxxx…xxxxxxx" for place in (1, 2, 3)]
    assert len(set(told_apart(HOSTILE, 20))) == len(set(HOSTILE))


def test_a_text_has_as_much_room_as_there_is():
    assert fitted("running_var", 500) == "running_var"
    for name in (*HOSTILE, "W" * 99, "i" * 99):
        for room in (20, 100, 300):
            assert text_width(fitted(name, room)) <= room
    assert len(fitted("i" * 99, 100)) > len(fitted("W" * 99, 100)) > 3


def test_the_width_of_a_text_grows_with_it():
    assert text_width("") == 0
    assert 0 < text_width("iii") < text_width("mmm") < text_width("雪雪雪") == 33


@pytest.mark.parametrize(("number", "room", "step"), [(10, 130, 1), (11, 130, 2), (100, 1, 100)])
def test_names_that_have_no_room_are_left_out(number, room, step):
    assert every(number, room) == step
    assert len(range(0, number, step)) * 13 <= max(room, 13)
