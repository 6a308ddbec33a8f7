"""What is planted for the rules about two files: each makes its finding, and no other."""

from __future__ import annotations

from dataclasses import replace

from bncli.model import BatchNormModule
from bncli.model.changes import Comparison, Found, How, LayerVersion, Measures, State
from bncli.report import Certainty
from bncli.rulebook.change_findings import change_findings
from bncli.rulebook.changes import Expectation, Expected


def layer(state, name="bn", *, measures=None, before=None, **numbers):
    """A layer that was matched by its name, in some state."""
    found = Found(state, f"it is {state.value}", numbers=numbers)
    return LayerVersion(
        name, name, How.NAME, Certainty.CERTAIN, found, measures or Measures(), 8, before
    )


def compared(*layers, expected=()):
    """The findings of two files with these layers."""
    return change_findings(Comparison("a.pt", "b.pt", "", "", layers), expected)


TRAINED = layer(State.TRAINED, "trained")
FROZEN = Expectation(Expected.FROZEN, lambda name: name == "bn")


def planted(state, **numbers):
    """The one finding of a layer in a state beside one that was trained on."""
    (finding,) = compared(TRAINED, layer(state, **numbers))
    return finding


def with_another_eps():
    """The one finding of a layer for which two files store another eps."""
    modules = tuple(BatchNormModule("BatchNorm2d", eps=eps) for eps in (1e-3, 1e-5))
    (finding,) = compared(replace(TRAINED, modules=modules))
    return finding


PLANTED = {
    "BN611": lambda: planted(State.STATISTICS),
    "BN612": lambda: planted(State.WEIGHTS, cause="own", own_moved=True),
    "BN613": lambda: planted(State.RESET),
    "BN614": lambda: planted(State.CONVENTION, cause="unbiased"),
    "BN615": lambda: planted(State.ORDER, cause="permuted"),
    "BN616": lambda: planted(State.FOLDED, fault="mean-not-folded"),
    "BN620": lambda: compared(TRAINED, layer(State.TRAINED), expected=[FROZEN])[0],
    "BN621": lambda: planted(State.DIFFERENT, cause="same-count"),
    "BN623": with_another_eps,
}
