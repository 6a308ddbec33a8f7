"""`check_batchnorm`: an implementation judged in every configuration, and its faults named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

from bncli.errors import UsageError
from bncli.testing.configurations import SHAPES, Configuration, every_configuration
from bncli.testing.verdict import BatchNormMismatch, Summary

if TYPE_CHECKING:
    from bncli.backends.interface import Backend
    from bncli.testing.runs import Step


def batchnorm_configurations() -> tuple[Configuration, ...]:
    """The configurations in which `check_batchnorm` judges, in a fixed order.

    Each prints as a short id, and its `about` says what it looks for:

        train-2d to train-5d, eval-2d to eval-5d    both modes, inputs of 2 to 5 axes
        channels-last-4d channels-last-5d channels-last-eval reversed-axes strided strided-2d
        strided-eval                                how the input lies in memory
        float64-few float64-train float64-eval float16-train float16-eval float16-all
        bfloat16-train bfloat16-eval bfloat16-all   dtypes; the last of each has all in that dtype
        two-values one-sample one-position one-channel many-channels odd-sizes long-sums
        square-3d square-4d square-5d               sizes; square: as wide as there are channels
        one-value one-value-1x1 one-value-eval empty empty-eval   too few values, or none
        mean-1000 mean-minus-1000 mean-10000 mean-1000-float64    a mean of so many std
        tiny-values denormal-variance overflow-float32 overflow-bfloat16 overflow-float16
        nan nan-eval inf constant zeros             the ends of a dtype, and unusual channels
        momentum-0 momentum-1 momentum-0.3 momentum-0.01 momentum-none
        eps-0-eval eps-large eps-large-eval eps-1e-3
        no-affine no-affine-eval no-statistics no-statistics-eval signed-weight
        signed-weight-eval                          the layer's arguments
        steps steps-cumulative train-then-eval eval-twice eval-then-train   several batches

    In pytest, a test for each is a line:

        @pytest.mark.parametrize("configuration", batchnorm_configurations(), ids=str)
        def test_my_batchnorm(configuration):
            check_batchnorm(MyBatchNorm2d, configurations=[configuration])
    """
    return every_configuration()


def check_batchnorm(
    implementation: Callable[..., Any] | Backend,
    *,
    tolerance_factor: float = 1.0,
    configurations: Iterable[Configuration] | Configuration | None = None,
    ndim: int | Sequence[int] | None = None,
) -> Summary:
    """Judge a BatchNorm that you wrote against exact arithmetic; its faults are named.

    `implementation` is a `torch.nn.Module` class with BatchNorm's arguments, a function that makes
    such a module, or a function (x, weight, bias, running_mean, running_var, training, momentum,
    eps) that returns the output, or (output, running_mean, running_var); running statistics that it
    changes in place count too. It takes the arrays of the library that the annotation of its first
    parameter names, or that its attribute `array` makes of a NumPy array, and else NumPy's.

    The tolerances follow from the dtypes: what sums in float32 (float64 for float64) in any order,
    and the roundings of the plain formulas, may lose. `tolerance_factor` widens all of them, for
    hardware with less. `configurations` are some of `batchnorm_configurations`, by default all, and
    `ndim` the numbers of axes of the inputs that are tried, by default those that are not refused.

    What the implementation cannot express (an axis count or dtype that it refuses) is skipped and
    counted in the `Summary` that is returned, with the reason.

    Raises BatchNormMismatch, an AssertionError that names the difference, the configurations that
    show it and what to do about it; `unittest.SkipTest`, which pytest shows as skipped, where
    `configurations` were chosen and none can be expressed; UsageError for wrong arguments.
    """
    __tracebackhide__ = True  # pytest shows the test that failed, and the message
    from bncli.testing.judging import Judge
    from bncli.testing.naming import Explanation, explain_with
    from bncli.testing.subject import Subject

    chosen = _tuple_of(every_configuration() if configurations is None else configurations)
    wanted = _tuple_of(() if ndim is None else ndim)
    _refuse_wrong_arguments(tolerance_factor, chosen, wanted)
    subject = Subject.of(implementation)
    done = subject.ran(chosen, wanted)
    judge = Judge(tolerance_factor)
    failures = [failure for step in done.steps for failure in judge.failures(step)]
    summary = Summary(
        name=subject.name,
        judged=len({step.configuration.name for step in done.steps}),
        skipped=done.skipped,
        moved=done.moved,
        without=_without(done.steps),
        tolerance_factor=tolerance_factor,
        most_used=judge.largest,
    )
    if failures:
        found = explain_with(subject.again, judge, done.steps, failures)
        raise BatchNormMismatch(summary, found, failures)
    if not summary.judged:
        reasons = "; ".join(dict.fromkeys(summary.skipped.values()))
        if configurations is not None:
            raise SkipTest(reasons)
        raise BatchNormMismatch(summary, Explanation((), ()), (), subject.hint)
    return summary


def _tuple_of(value: Any) -> tuple[Any, ...]:
    """Several values as a tuple, or one as the only one."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)


def _refuse_wrong_arguments(
    tolerance_factor: object, chosen: Sequence[object], wanted: Sequence[object]
) -> None:
    """Raises UsageError for arguments with which nothing can be judged."""
    if not isinstance(tolerance_factor, int | float) or not 0 < tolerance_factor < float("inf"):
        raise UsageError(f"tolerance_factor is {tolerance_factor}; it has to be a number above 0.")
    if not chosen:
        raise UsageError("there is no configuration to judge in; leave configurations out for all.")
    for each in chosen:
        if not isinstance(each, Configuration):
            raise UsageError(
                f"{each!r} is no configuration; take them from batchnorm_configurations()."
            )
    for number in wanted:
        if number not in SHAPES:
            raise UsageError(f"ndim is {number!r}; the configurations have 2 to 5 axes.")


def _without(steps: Sequence[Step]) -> Mapping[str, tuple[int, int]]:
    """The quantities that are missing: in how many configurations, and of how many."""
    missing: dict[str, set[str]] = {}
    judged = {step.configuration.name for step in steps if step.stats is not None}
    for step in steps:
        for quantity in step.missing:
            missing.setdefault(quantity, set()).add(step.configuration.name)
    given = {quantity for step in steps if step.stats is not None for quantity in step.found}
    return {
        quantity: (len(names if quantity in given else judged), len(judged))
        for quantity, names in missing.items()
    }
