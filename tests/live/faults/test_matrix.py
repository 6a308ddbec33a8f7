"""Every fault of a live model is named first, at its layer, and healthy models get no warning."""

from __future__ import annotations

import pytest

from bncli.report import Severity
from tests.live.faults.healthy import HEALTHY
from tests.live.faults.matrix import CODES, Cell, outcome, said, telling
from tests.live.faults.nets import ARCHITECTURES
from tests.live.faults.planting import FAULTS
from tests.live.faults.training import Store

SEEDS = (0, 1, 2)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Nets are trained when they are first asked for."""
    return Store(tmp_path_factory.mktemp("nets"))


def planted():
    """Each fault in one net with one seed; the whole matrix with `-m exhaustive`."""
    for name, fault in FAULTS.items():
        nets = [each for each in ARCHITECTURES if each not in fault.without]
        for architecture in nets:
            for seed in SEEDS:
                sampled = architecture == nets[0] and seed == SEEDS[0]
                marks = () if sampled else pytest.mark.exhaustive
                cell = Cell(name, seed, architecture)
                yield pytest.param(cell, marks=marks, id=str(cell).replace(" ", "-"))


def healthy():
    """Each kind with one seed; all five with `-m exhaustive`."""
    for name in HEALTHY:
        for seed in range(5):
            marks = pytest.mark.exhaustive if seed else ()
            yield pytest.param(Cell(name, seed), marks=marks, id=f"{name}-{seed}")


@pytest.mark.parametrize("cell", [*planted()])
def test_a_fault_is_named_first_and_nothing_else_is_certain(cell, store):
    found = outcome(cell, store)
    numbers = f"{said(found)}: {telling(found.found)}"
    assert found.first, numbers
    assert not found.wrongly_certain, numbers
    assert found.right_layer, [each.subject for each in found.named]


@pytest.mark.parametrize("cell", [*healthy()])
def test_a_healthy_model_gets_no_warning(cell, store):
    found = outcome(cell, store)
    loud = [each for each in found.found.findings if each.severity is not Severity.INFO]
    assert not loud, f"{[each.message for each in loud]}: {telling(found.found)}"


def test_every_cause_is_planted():
    assert {cause for fault in FAULTS.values() for cause in fault.causes} == set(CODES)
