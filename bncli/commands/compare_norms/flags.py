"""The flags of `bncli compare-norms`, and the norms that they describe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from bncli.arguments import options
from bncli.arguments.flags import InputFlags
from bncli.arguments.options import option
from bncli.errors import UsageError
from bncli.light import dataclass

if TYPE_CHECKING:
    from bncli.arguments.input import Input
    from bncli.norms import Norm

FIRST_VALUES = 8
"""Values of the first sample that are listed, if the user does not say how many."""

MOST_DIVISORS = 12
"""Numbers of groups that a refusal names."""


@dataclass(frozen=True, slots=True)
class SampledFlags(InputFlags):
    """How the input is read, and what of its first sample is shown."""

    channel_axis: Annotated[
        int | None,
        option(
            "The channel axis; -1 for channels-last data, such as sequences (N, T, D).",
            options.INPUT,
            metavar="N",
            default="1",
        ),
    ] = None
    first_values: Annotated[
        int | None,
        option(
            "Show the first sample too, with N of its values.",
            options.INPUT,
            metavar="N",
            least=1,
            default=f"{FIRST_VALUES} with -v",
        ),
    ] = None

    def open_samples(self, spec: str | None) -> Input:
        """Open the tensor; raises as `open`, and UsageError where axis 0 has no samples."""
        from bncli.arguments.input import check_input

        if self.values is not None and self.values.strip().isdecimal():
            raise UsageError(
                f"--values {self.values}: the number of values to show is now --first-values "
                f"{self.values.strip()}; --values takes the input itself."
            )
        axis = self.channel_axis
        given = check_input(self.tensors([spec]), 1 if axis is None else axis, self.dtype)
        if given.channel_axis == 0:
            raise UsageError(f"--channel-axis {axis}: axis 0 holds the samples; name another axis.")
        return given


@dataclass(frozen=True, slots=True)
class NormFlags:
    """The norms' arguments; None where a flag was not given."""

    groups: Annotated[
        int | None,
        option(
            "GroupNorm's number of groups.",
            options.LAYER,
            metavar="N",
            default="up to 32 groups of at least 2 channels",
        ),
    ] = None
    normalized_shape: Annotated[
        str | None,
        option(
            "The sizes of the trailing axes over which LayerNorm and RMSNorm compute their "
            "statistics, such as 3,28,28. If it names all axes, one statistic covers all samples.",
            options.LAYER,
            metavar="LIST",
            default="all axes but the first; only the channels if they come last",
        ),
    ] = None
    eps: Annotated[
        float | None,
        option(
            "The number added before the square root, in every norm.",
            options.LAYER,
            metavar="NUMBER",
            default="1e-05; in RMSNorm 1.19e-07, or 2.22e-16 for float64",
        ),
    ] = None

    def check(self) -> None:
        """Raise UsageError unless eps is a positive number."""
        if self.eps is not None and not 0 < self.eps < math.inf:
            raise UsageError(f"--eps {self.eps:g}: eps must be a finite number above 0.")

    def norms(self, given: Input) -> tuple[Norm, ...]:
        """Each norm of this input. Raises UsageError for what does not fit it."""
        from bncli.norms import default_groups, describe

        groups = default_groups(given.num_features) if self.groups is None else self.groups
        _check_groups(groups, given.num_features)
        return describe(
            given.tensors[0].shape,
            given.channel_axis,
            groups=groups,
            normalized=_normalized(self.normalized_shape, given),
            eps=self.eps,
            rms_eps=2.0 ** (-52 if given.dtype == "float64" else -23),
        )


def _check_groups(groups: int, channels: int) -> None:
    """Raise UsageError where this number of groups does not divide the channels."""
    if 1 <= groups <= channels and channels % groups == 0:
        return
    divisors = [str(number) for number in range(1, channels + 1) if channels % number == 0]
    *some, last = (
        divisors
        if len(divisors) <= MOST_DIVISORS
        else [*divisors[:MOST_DIVISORS], "another divisor"]
    )
    choice = f"{', '.join(some)} or {last}" if some else last
    raise UsageError(
        f"--groups {groups}: the number of groups must divide the number of channels, {channels}: "
        f"choose {choice}."
    )


def _normalized(text: str | None, given: Input) -> int:
    """The number of last axes that LayerNorm reduces.

    Raises UsageError where `--normalized-shape` is not the sizes of the input's last axes.
    """
    shape = given.tensors[0].shape
    last = len(shape) - 1
    if text is None:
        return 1 if given.channel_axis == last else last
    sizes = tuple(int(part) if part.strip().isdecimal() else -1 for part in text.split(","))
    if not len(sizes) <= len(shape) or shape[-len(sizes) :] != sizes:
        endings = [",".join(map(str, shape[start:])) for start in range(last, -1, -1)]
        raise UsageError(
            f"--normalized-shape {text}: it must be the sizes of the last axes of shape "
            f"{list(shape)}: choose {' or '.join(endings)}."
        )
    return len(sizes)
