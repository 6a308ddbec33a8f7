"""Why running statistics differ: the weight of the batch, the variance's divisor, the counter."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.light import np
from bncli.model import RunningStats
from bncli.running_stats import update_factor
from bncli.verify.departures.cause import Cause, all_of_channels, in_doubt
from bncli.verify.identify.fixes import update_departure
from bncli.verify.identify.running import Observed, identify_update

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bncli.backends.interface import BackendRun
    from bncli.model import FloatArray
    from bncli.verify.batch_norm_pass import BatchNormPass
    from bncli.verify.closeness import Tolerance
    from bncli.verify.identify.updates import Update

BIASED = Cause(
    "running_var is biased: it divides by n",
    "Multiply the batch's variance by n / (n - 1) before it enters running_var.",
)
DECIDER = "other running statistics before the batch"
"""What would tell apart causes that give the same update."""

IN_EVAL = Cause(
    "the running statistics are updated in eval mode", "Update them in training mode alone."
)


def running_causes(
    done: BatchNormPass, run: BackendRun, allowed: Mapping[str, Tolerance]
) -> dict[str, Cause]:
    """What explains running_mean and running_var, each as if it differed."""
    before, after = done.before, done.after
    theirs = [run.quantities.get(name) for name in ("running_mean", "running_var")]
    if before is None or after is None or theirs[0] is None or theirs[1] is None:
        return {}
    if not done.settings.training:
        return dict.fromkeys(("running_mean", "running_var"), IN_EVAL)
    mean, var = (np.asarray(values, np.float64) for values in theirs)
    kept = RunningStats(mean, var, after.num_batches_tracked)
    factor = update_factor(done.settings.momentum, after.num_batches_tracked)
    found = identify_update(Observed(done.stats, before, kept, done.parameter_dtype))
    if found.ways and found.ways[0].explains:
        return _of_update(found.ways[0].update, factor, done)
    fitting = {
        "running_mean": all_of_channels(
            dict(_odd(before.running_mean, done.stats.mean, factor, "running_mean", done)),
            mean,
            allowed["running_mean"],
        ),
        "running_var": all_of_channels(
            dict(_odd(before.running_var, done.stats.unbiased_var, factor, "running_var", done)),
            var,
            allowed["running_var"],
        ),
    }
    causes = {name: in_doubt(each, DECIDER) for name, each in fitting.items()}
    return {name: cause for name, cause in causes.items() if cause is not None}


def _of_update(update: Update, factor: float, done: BatchNormPass) -> dict[str, Cause]:
    """What is odd about an update that is known, for each buffer."""
    if update.is_none:
        if factor == 0:
            return {}
        never = Cause(
            "the running statistics are not updated", "Update them in place in training mode."
        )
        return dict.fromkeys(("running_mean", "running_var"), never)
    found = {}
    weights = {
        "running_mean": update.weight if update.mean_weight is None else update.mean_weight,
        "running_var": update.weight,
    }
    for name, weight in weights.items():
        cause = _of_weight(name, weight, factor, done)
        if cause is not None:
            found[name] = cause
    if update.variance == "biased" and update.weight:
        found["running_var"] = _joined(found.get("running_var"), BIASED)
    elif "running_var" not in found:
        words, fix = update_departure(update)
        if fix:
            found["running_var"] = Cause(words, fix)
    return found


def _joined(first: Cause | None, second: Cause) -> Cause:
    """Both causes in one."""
    if first is None:
        return second
    return Cause(f"{first.words}; {second.words}", f"{first.fix} {second.fix}")


def _of_weight(name: str, weight: float, factor: float, done: BatchNormPass) -> Cause | None:
    """What is odd about the weight with which the batch enters a buffer."""
    if math.isclose(weight, factor, rel_tol=1e-3):
        return None
    if weight == 0:
        return Cause(f"{name} is not updated", f"Update {name} in training mode too.")
    if math.isclose(weight, 1 - factor, rel_tol=1e-3) and done.settings.momentum is not None:
        return Cause(
            f"momentum weighs the old value: the batch enters with {weight:.3g}",
            "In PyTorch momentum is the weight of the batch: "
            "(1 - momentum) * running + momentum * batch.",
        )
    rule = "momentum None averages all batches alike" if done.settings.momentum is None else ""
    return Cause(
        f"the batch enters {name} with {weight:.3g}, not with {factor:.3g}",
        f"Weigh the batch by {'1 / num_batches_tracked: ' + rule if rule else 'momentum'}.",
    )


def _odd(
    old: FloatArray, batch: FloatArray, factor: float, name: str, done: BatchNormPass
) -> list[tuple[Cause, FloatArray]]:
    """Updates of one buffer that frameworks do not have, and new implementations do."""
    count = done.stats.count
    with np.errstate(all="ignore"):
        usual = (1 - factor) * old + factor * batch
        found = [
            (Cause(f"{name} is not updated", f"Update {name} in training mode too."), old),
            (
                Cause(
                    f"the old value of {name} is kept whole: the batch is only added",
                    "Compute (1 - momentum) * running + momentum * batch.",
                ),
                old + factor * batch,
            ),
            (
                Cause(
                    f"the batch enters {name} whole, and the old value is weighed down",
                    "Compute (1 - momentum) * running + momentum * batch.",
                ),
                (1 - factor) * old + batch,
            ),
        ]
        if name == "running_var":
            biased = done.stats.var
            invstd = 1 / np.sqrt(biased + done.settings.eps)
            found += [
                (
                    Cause(
                        "n / (n - 1) multiplies all of running_var, the old value too",
                        "Multiply the batch's variance alone by n / (n - 1).",
                    ),
                    ((1 - factor) * old + factor * biased) * count / (count - 1),
                ),
                (
                    Cause(
                        "n / (n - 1) is applied twice", "Multiply the biased variance by it once."
                    ),
                    usual + factor * (batch * count / (count - 1) - batch),
                ),
                (
                    Cause(
                        "invstd enters running_var, not the variance",
                        "Store the unbiased variance in running_var.",
                    ),
                    (1 - factor) * old + factor * invstd,
                ),
                (
                    Cause(
                        "the sum of squares enters running_var, not the variance",
                        "Divide the sum of squared deviations by n - 1.",
                    ),
                    (1 - factor) * old + factor * biased * count,
                ),
            ]
    return found


def counter_cause(done: BatchNormPass, run: BackendRun) -> Cause | None:
    """Why num_batches_tracked differs."""
    before = done.before
    if before is None:
        return None
    step = int(np.asarray(run.quantities["num_batches_tracked"]).reshape(-1)[0])
    step -= before.num_batches_tracked
    if not done.settings.training:
        return Cause("batches are counted in eval mode", "Count them in training mode alone.")
    if step == 0:
        return Cause(
            "num_batches_tracked is not counted", "Add 1 to num_batches_tracked in each batch."
        )
    return Cause(
        f"a batch adds {step} to num_batches_tracked", "Add 1 to num_batches_tracked in each batch."
    )
