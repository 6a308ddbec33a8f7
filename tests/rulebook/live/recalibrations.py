"""What is planted for the rules that judge new statistics: each makes its finding, and no other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bncli.model import BatchNormState
from bncli.model.capture import Propagation
from bncli.model.recalibration import Goal, LayerChange, Recalibration
from bncli.rulebook.live.causes import diagnosis
from bncli.rulebook.live.repair import judged
from tests.rulebook.live.captures import outputs
from tests.rulebook.live.faults import PLANTED as IN_CAPTURES


def no_help():
    """One layer is spoilt, and the new statistics leave the gap as it is."""
    return _judged(after=0.9)


def too_little():
    """They help, and 100 samples know a mean to a tenth of its standard deviation."""
    one = np.ones(1)
    state = BatchNormState("bn", running_mean=one, running_var=one)
    return _judged(0.2, (LayerChange("bn", state, one, one, 100, 100, 4, 0.1 * one),))


def _judged(after, layers=()):
    capture = replace(IN_CAPTURES["BN808"]().capture, outputs=outputs(0.9, 0.2))
    done = Recalibration(
        layers,
        capture=capture,
        gap_before=capture.gap(Propagation.EVAL),
        gap_after=after,
        gap_floor=capture.gap_floor,
        checked=True,
    )
    return judged(done, Goal.TRAINING, diagnosis(capture), 0.01).finding


PLANTED = {"BN820": no_help, "BN821": too_little}
