"""What the default run tries of a matrix, and what `-m exhaustive` does: the whole of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import settings


def sampled(cases: Iterable[Any], kept: Callable[[int], bool]) -> list[Any]:
    """The cases for `parametrize`; those whose place is not kept are left to `-m exhaustive`."""
    return [
        case if kept(place) else pytest.param(case, marks=pytest.mark.exhaustive)
        for place, case in enumerate(cases)
    ]


def some(seeds: range, few: int) -> list[Any]:
    """The first few seeds and the others, for a test that tries all it is given."""
    return [seeds[:few], pytest.param(seeds[few:], marks=pytest.mark.exhaustive)]


def examples(
    few: int, all_of_them: int, **more: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Hypothesis' settings for a test of which an example is dear: few by default.

    All of them, and under that mark, by the profile "exhaustive" that tests/conftest.py loads.
    """
    if settings.get_current_profile_name() != "exhaustive":
        return settings(max_examples=few, deadline=None, **more)
    whole = settings(max_examples=all_of_them, deadline=None, **more)
    return lambda test: pytest.mark.exhaustive(whole(test))
