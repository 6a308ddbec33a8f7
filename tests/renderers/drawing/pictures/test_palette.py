"""The colours of pages: what can be read, and what can be told apart."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from bncli.renderers.drawing.pictures.palette import (
    DARK,
    DASHES,
    LIGHT,
    MARKERS,
    PLACEHOLDERS,
    SERIES,
    SEVERITY_MARKERS,
    look_of,
    variables,
)

LETTERS = ("ink", "muted", "link", "error", "warning", "info", "good", "nothing")
SHAPES = ("line", *(f"series{number}" for number in range(SERIES)))


def linear(color: str) -> np.ndarray:
    parts = np.array([int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """By the formula of WCAG 2."""
    light = sorted(linear(color) @ [0.2126, 0.7152, 0.0722] for color in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_letters_and_lines_stand_out(colors):
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for paper in ("paper", "panel"):
        for role in LETTERS:
            assert contrast(colors[role], colors[paper]) >= 4.5, (role, paper)
        for role in SHAPES:
            assert contrast(colors[role], colors[paper]) >= 3, (role, paper)


SEEN = {
    "normal": np.eye(3),
    # Machado, Oliveira and Fernandes 2009, severity 1.0.
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
}  # fmt: skip


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of linear sRGB, for the white of D65."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = xyz @ np.clip(rgb, 0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_the_first_series_are_told_apart_by_their_colours(colors, seen):
    """A difference of 10 in CIELAB is seen at a glance; few pictures have more than 4 series."""
    places = [lab(np.array(SEEN[seen]) @ linear(colors[f"series{n}"])) for n in range(4)]
    for one, other in combinations(places, 2):
        assert np.linalg.norm(one - other) > 10


def test_series_differ_without_colour_too():
    looks = [look_of(number, number, LIGHT) for number in range(len(MARKERS))]
    assert len({look.marker for look in looks}) == len(MARKERS) > SERIES
    assert len({look.dashes for look in looks[: len(DASHES)]}) == len(DASHES)
    assert len({look.color for look in looks}) == SERIES
    assert len(set(SEVERITY_MARKERS.values())) == 3


def test_both_schemes_have_every_role():
    assert list(LIGHT) == list(DARK) == list(PLACEHOLDERS)
    assert len(set(PLACEHOLDERS.values())) == len(PLACEHOLDERS)
    assert "--bn-ink: #1c2128;" in variables(LIGHT)
