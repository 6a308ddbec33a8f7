"""What another implementation did otherwise in one pass, in words: a name for each difference.

cause       a difference in words, its fix, and how a candidate is measured
output      the output: identify's search, and what only implementations get wrong
precision   statistics that lose digits, and NaN that spreads
running     the update of the running statistics, and the counter
gradients   the backward pass, of an output that is right
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.batchnorm import gradient_sums
from bncli.verify.comparison import derived_tolerances
from bncli.verify.departures.gradients import gradient_causes
from bncli.verify.departures.output import identified, output_cause
from bncli.verify.departures.precision import precision_cause
from bncli.verify.departures.running import counter_cause, running_causes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.verify.batch_norm_pass import BatchNormPass
    from bncli.verify.comparison import Compared
    from bncli.verify.departures.cause import Cause
    from bncli.verify.identify.output import Identification


def departures(
    done: BatchNormPass,
    x: NDArray[Any],
    compared: Compared,
    found_output: Identification | None = None,
) -> dict[str, Cause]:
    """What explains the quantities that did not pass, by quantity; no entry for what nothing does.

    What rounding explains, where the user allows less, has none. `x` is the input in the user's
    axes, as `compare_channels` takes it. `found_output` is what
    `identified` says of the output, where that is known already.
    """
    failed = {
        item.whole.quantity: item
        for item in compared.quantities
        if not (item.whole.passed or item.whole.explained)
    }
    if not failed:
        return {}
    found: dict[str, Cause] = {}
    sums = gradient_sums(x, compared.grad_output, done.norm, done.channel_axis)
    allowed = derived_tolerances(done, x, sums, compared.run)
    lost = None
    if "output" in failed:
        searched = found_output or identified(done, x, compared.run, "the implementation")
        cause = output_cause(done, x, compared.run, allowed["output"], searched)
        if cause is None:
            cause = lost = precision_cause(done, x, compared.run, failed["output"])
        if cause is not None:
            found["output"] = cause
    updates = running_causes(done, compared.run, allowed)
    found |= {quantity: cause for quantity, cause in updates.items() if quantity in failed}
    if "output" in found:
        statistics = {"mean", "var", "invstd"} | (
            {"running_mean", "running_var"} if lost else set()
        )
        found |= dict.fromkeys(statistics & (set(failed) - set(found)), found["output"])
    if "num_batches_tracked" in failed:
        counted = counter_cause(done, compared.run)
        found |= {"num_batches_tracked": counted} if counted is not None else {}
    if "output" not in failed:
        gradients = {"grad_input", "grad_weight", "grad_bias"} & set(failed)
        found |= gradient_causes(done, x, compared, sums, allowed, gradients)
    return found
