"""How a backend computed: what the tolerances of a comparison follow from."""

from __future__ import annotations

import math
from typing import Literal

from bncli.dtypes import DTYPES
from bncli.light import dataclass

Order = Literal["repeated", "similar", "any"]
"""What is known of the order of additions: `bncli.pytorch_cpu` repeats the forward sums to the
last bits; they are PyTorch's, as another build or device has them; nothing.
"""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How the other implementation computed; `plain` is for one of which little is known.

    `dtype` is that of input and output, `parameter_dtype` that of weight, bias and buffers,
    `accumulate_dtype` that of its forward sums and `backward_dtype` of its backward ones;
    `additions` and `backward_additions` are the lengths of the longest. `rows` says that it sums
    row by row. `statistics_dtype` is that in which the batch's mean and variance are kept, "" for
    the parameters' own. `moving_mean` says that squares are summed around a mean that moves as
    values come (Welford's algorithm), and that is rounded at its own size each time. `factor`
    multiplies what all this allows, for hardware of less than IEEE's precision.
    """

    dtype: str
    parameter_dtype: str
    accumulate_dtype: str
    backward_dtype: str
    additions: int
    backward_additions: int
    rows: bool
    order: Order
    statistics_dtype: str = ""
    moving_mean: bool = False
    factor: float = 1.0

    @classmethod
    def plain(
        cls, dtype: str, parameter_dtype: str, additions: int, *, computed_in: str | None = None
    ) -> Arithmetic:
        """Steps and sums in `computed_in` (None: the parameters' dtype), in an order of its own.

        `additions` is the length of the longest sum, such as the number of values per channel; less
        for sums by pairs. The variance is a mean of squared deviations from the mean, which may
        move as values come; not mean(x^2) - mean^2, which loses more.
        """
        computed_in = computed_in or parameter_dtype
        return cls(
            dtype=dtype,
            parameter_dtype=parameter_dtype,
            accumulate_dtype=computed_in,
            backward_dtype=computed_in,
            additions=additions,
            backward_additions=additions,
            rows=False,
            order="any",
            moving_mean=True,
        )

    @property
    def order_known(self) -> bool:
        """Whether the forward sums are repeated to the last bits."""
        return self.order == "repeated"

    @property
    def own_steps(self) -> int:
        """Roundings on the way to a quantity that PyTorch's kernels do without."""
        return 2 if self.order == "any" else 0

    @property
    def statistics_u(self) -> float:
        """The unit roundoff of the dtype of mean and variance where it is not the parameters'."""
        return DTYPES[self.statistics_dtype].unit_roundoff if self.statistics_dtype else 0.0

    @property
    def centering_u(self) -> float:
        """What a variance loses to a moving mean, relative to |mean| * std.

        Both factors of a squared deviation x - mean are off by up to u * |mean|, and the mean is
        rounded twice on the way to each: in its division, and in its sum.
        """
        return 4 * DTYPES[self.accumulate_dtype].unit_roundoff if self.moving_mean else 0.0

    @property
    def u(self) -> float:
        """The unit roundoff of the parameter dtype, in which nearly every step is rounded.

        Twice that for float64, where bncli's own roundings are as large as the other side's.
        """
        u = DTYPES[self.parameter_dtype].unit_roundoff
        return 2 * u if self.as_precise else u

    @property
    def as_precise(self) -> bool:
        """Whether the other side computes in float64, as bncli does."""
        return self.parameter_dtype == "float64"

    @property
    def walk(self) -> float:
        """The relative error that the roundings of a forward sum may add to the recomputed one.

        In any order, the error of all of it, were every rounding the largest and the same way.
        """
        if self.order == "any":
            return DTYPES[self.accumulate_dtype].unit_roundoff * self.additions
        return 0.0 if self.order_known else 4 * walk_of(self.accumulate_dtype, self.additions)

    @property
    def slack(self) -> float:
        """How many times the recomputed sum's error is allowed for; 0 where none is recomputed."""
        return {"repeated": 1.05, "similar": 8.0, "any": 0.0}[self.order]

    @property
    def backward_walk(self) -> float:
        """The relative error that the roundings of a backward sum leave; see `walk_of`.

        At four deviations: these sums are not recomputed. In any order, as `walk`.
        """
        if self.order == "any":
            return 2 * DTYPES[self.backward_dtype].unit_roundoff * self.backward_additions
        return 2 * walk_of(self.backward_dtype, self.backward_additions)

    @property
    def output_u(self) -> float:
        """The unit roundoff of the output dtype where it is coarser than the parameters'."""
        return 0.0 if self.dtype == self.parameter_dtype else DTYPES[self.dtype].unit_roundoff

    @property
    def underflow(self) -> float:
        """What one step may lose below the normal range: all of it, where a process flushes.

        Subnormals have few digits, and with flush-to-zero (`torch.set_flush_denormal`, or a library
        built for fast arithmetic) none. Steps are in float64 for float64, and else in float32.
        """
        return DTYPES["float64" if self.as_precise else "float32"].smallest_normal

    @property
    def tiniest(self) -> float:
        """The absolute error of a value in the parameter dtype, however small it is."""
        return max(DTYPES[self.parameter_dtype].tiniest, self.underflow)

    @property
    def output_tiniest(self) -> float:
        """The absolute error of a value in the output dtype, however small it is."""
        return max(DTYPES[self.dtype].tiniest, self.underflow)


def walk_of(dtype: str, additions: int) -> float:
    """How far a running sum's roundings carry it, were they independent, relative to its size.

    Each addition rounds the partial sum, which grows evenly: u * sqrt(additions / 3), of which
    uniformly spread roundings leave 0.58; two such deviations.
    """
    return 0.67 * DTYPES[dtype].unit_roundoff * math.sqrt(additions)
