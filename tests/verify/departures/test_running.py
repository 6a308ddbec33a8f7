"""Mistakes of the update and of the counter, each planted alone."""

from __future__ import annotations

import pytest

from tests.verify.departures.planted import RUNNING, case, named


@pytest.mark.parametrize("mistake", RUNNING)
def test_an_update(mistake):
    quantity, words = RUNNING[mistake]
    causes, failed = named(mistake, case())
    assert quantity in failed
    assert causes[quantity].startswith(words), causes
    assert "output" not in failed


def test_evaluation_that_updates_or_has_the_terms_of_training():
    causes, failed = named("in eval", case(training=False))
    assert failed == {"running_mean", "running_var", "num_batches_tracked"}
    assert causes == dict.fromkeys(
        ("running_mean", "running_var"), "the running statistics are updated in eval mode"
    ) | {"num_batches_tracked": "batches are counted in eval mode"}


def test_an_average_that_is_none():
    causes, _ = named("0.3", case(momentum=None))
    assert causes["running_mean"] == "the batch enters running_mean with 0.3, not with 0.2"
