"""The causes: each is another way, and would be named if it were the bug."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.backends.arithmetic import Arithmetic
from bncli.backends.interface import BackendRun
from bncli.testing import BatchNormMismatch, batchnorm_configurations, check_batchnorm
from bncli.testing.causes import every_cause
from bncli.testing.inputs import rounded_to
from bncli.testing.prediction import predicted
from bncli.testing.runs import Step
from bncli.testing.ways import PYTORCH

CAUSES = every_cause()
COMPUTED = [
    cause
    for cause in CAUSES
    if any("." in path for path in cause.changes) or "skips_nan" in cause.changes
]
"""Those that are a formula."""


class Computed:
    """A backend that computes in one way, rounded to the dtypes."""

    name = "computed"

    def __init__(self, way):
        self.way = way

    def version(self):
        return ""

    def run(self, call):
        from bncli.testing.exact import exact_stats

        count = call.x.size // call.x.shape[1]
        if count == 1 and call.settings.normalizes_with_batch:
            raise_for_one_value()
        stats = exact_stats(call.x) if call.x.size else None
        name = batchnorm_configurations()[0]
        found = predicted(Step(name, 0, call, stats, {}), self.way)
        if found is None:
            raise_for_shape()
        kept = {
            quantity: rounded_to(
                np.asarray(values),
                call.dtype if values.shape == call.x.shape else call.parameter_dtype,
            )
            for quantity, values in found.items()
        }
        return BackendRun(kept, Arithmetic.plain(call.dtype, call.parameter_dtype, count))


def raise_for_one_value():
    from bncli.testing.runs import raising

    with raising("it"):
        raise ValueError("one value per channel")


def raise_for_shape():
    from bncli.testing.runs import raising

    with raising("it"):
        raise ValueError("operands could not be broadcast")


def test_each_is_another_way_with_words_and_a_fix():
    for cause in CAUSES:
        assert PYTORCH.changed(cause.changes) != PYTORCH
        assert cause.words
        assert cause.words[0].islower() or cause.words.startswith(("NaN", "1 is"))
        assert cause.fix.endswith(".")
        assert cause.fix[0].isupper() or cause.fix.startswith("grad_weight")
    assert len({cause.words for cause in CAUSES}) > 60


def test_pytorchs_way_passes():
    assert check_batchnorm(Computed(PYTORCH)).judged == len(batchnorm_configurations())


def named(cause):
    try:
        check_batchnorm(Computed(PYTORCH.changed(cause.changes)))
    except BatchNormMismatch as error:
        return error.causes
    return ()


@pytest.mark.parametrize("cause", COMPUTED[::16], ids=lambda cause: cause.words)
def test_a_formula_is_named(cause):
    assert named(cause) == (cause.words,)


@pytest.mark.exhaustive
def test_every_formula_is_named():
    others = {cause.words: found for cause in COMPUTED if (found := named(cause)) != (cause.words,)}
    assert others == {}
