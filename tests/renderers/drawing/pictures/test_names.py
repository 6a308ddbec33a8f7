"""Names in pictures."""

from __future__ import annotations

import pytest

from bncli.renderers.drawing.pictures.names import every, fitted, shortened, text_width
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
