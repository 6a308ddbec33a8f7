"""The configurations in which an implementation of BatchNorm is judged: fixed, a line each."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Literal

from bncli.light import dataclass

Layout = Literal["contiguous", "channels_last", "strided", "reversed"]
"""How the input lies in memory: as usual, with the channels last, as every second value of a longer
array, or with its axes stored in reverse order.
"""

Kind = Literal["", "one value", "empty", "overflow", "nan", "inf"]
"""What else than the numbers decides: see `Configuration.kind`."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """One configuration: a layer, and the batches that pass it one after the other.

    `name` is its id, which `str` gives, and `about` says in a few words what it looks for. The
    input has shape `shape`, channels on axis 1, and holds values of `dtype`; weight, bias and
    buffers are of `parameter_dtype`. `modes` has a letter a step, "t" for training and "e" for
    evaluation, and `batches` the number of samples in each, where it changes. Channel c has a mean
    of about `mean` * std and the standard deviation `std`; `values` names unusual ones. `signed`
    gives a weight of either sign and one that is 0. `tracked` is num_batches_tracked before the
    first step.

    Where an implementation refuses inputs of so many axes, those that are not `fixed` are judged
    with another number (`with_axes`).

    `kind` marks those with answers of their own: a batch of one value a channel may be refused (by
    a ValueError), an empty one too; a channel that overflows may become its bias or NaN.
    """

    name: str
    about: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    parameter_dtype: str = "float32"
    layout: Layout = "contiguous"
    modes: str = "t"
    batches: tuple[int, ...] = ()
    eps: float = 1e-5
    momentum: float | None = 0.1
    affine: bool = True
    track_running_stats: bool = True
    mean: float = 0.5
    std: float = 1.5
    values: str = ""
    signed: bool = False
    tracked: int = 4
    kind: Kind = ""
    fixed: bool = False

    def __str__(self) -> str:
        """The id, for `pytest.mark.parametrize(..., ids=str)`."""
        return self.name

    @property
    def ndim(self) -> int:
        """The number of axes of the input."""
        return len(self.shape)

    @property
    def num_features(self) -> int:
        """The number of channels."""
        return self.shape[1]

    @property
    def is_extreme(self) -> bool:
        """Whether its numbers are such that a formula other than PyTorch's may leave float32."""
        return self.std < 1e-3 or abs(self.mean) > 100 or self.values not in ("", "nan", "inf")

    def with_axes(self, ndim: int) -> Configuration:
        """The same with another number of axes: spatial ones are merged, or split.

        As many values per channel stay, as long as there are spatial axes on both sides.
        """
        shape = self.shape
        while len(shape) > ndim:
            *front, last = shape
            shape = (
                (*front[:-1], front[-1] * last) if len(front) > 2 else (front[0] * last, front[1])
            )
        while len(shape) < ndim:
            split = shape[0] if len(shape) == 2 else shape[-1]
            half, rest = (split // 2, 2) if split > 2 and split % 2 == 0 else (split, 1)
            shape = (half, shape[1], rest) if len(shape) == 2 else (*shape[:-1], half, rest)
        return replace(self, shape=shape)

    def shape_of(self, step: int) -> tuple[int, ...]:
        """The shape of the batch in a step."""
        return (self.batches[step], *self.shape[1:]) if self.batches else self.shape

    def count_of(self, step: int) -> int:
        """The number of values per channel in a step."""
        shape = self.shape_of(step)
        return shape[0] * prod(shape[2:])


def needs(configuration: Configuration) -> tuple[str, ...]:
    """What an implementation may not have, in words."""
    dtype, parameters = configuration.dtype, configuration.parameter_dtype
    found = []
    if dtype != "float32":
        found.append(f"{dtype} input")
    if parameters in HALF:
        found.append(f"{parameters} parameters")
    elif dtype in HALF:
        found.append("float32 parameters with half precision")
    if configuration.momentum is None:
        found.append("momentum None")
    if not configuration.affine:
        found.append("no weight and bias")
    if not configuration.track_running_stats:
        found.append("no running statistics")
    return tuple(found)


HALF = ("float16", "bfloat16")

TWO, THREE, FOUR, FIVE = (12, 3), (6, 3, 7), (5, 3, 4, 6), (3, 2, 4, 3, 5)
SHAPES = {2: TWO, 3: THREE, 4: FOUR, 5: FIVE}
"""The usual shape of each number of axes; all sizes of one differ, but for small ones."""

SQUARES = {3: (6, 4, 4), 4: (6, 4, 3, 4), 5: (2, 4, 3, 2, 4)}
"""Shapes whose last axis is as long as that of the channels."""


def _ranks() -> list[Configuration]:
    made = [
        Configuration(f"train-{ndim}d", f"training, {ndim} axes", shape, fixed=True)
        for ndim, shape in SHAPES.items()
    ]
    made += [
        Configuration(f"eval-{ndim}d", f"evaluation, {ndim} axes", shape, modes="e", fixed=True)
        for ndim, shape in SHAPES.items()
    ]
    return made


def _layouts() -> list[Configuration]:
    return [
        Configuration("channels-last-4d", "channels_last in memory", FOUR, layout="channels_last",
                      fixed=True),
        Configuration("channels-last-5d", "channels_last_3d in memory", FIVE,
                      layout="channels_last", fixed=True),
        Configuration("channels-last-eval", "channels_last in evaluation", FOUR,
                      layout="channels_last", modes="e"),
        Configuration("reversed-axes", "a transposed array, axes stored in reverse order", FOUR,
                      layout="reversed"),
        Configuration("strided", "every second value of a longer array", FOUR, layout="strided"),
        Configuration("strided-2d", "every second column of a longer array", TWO,
                      layout="strided", fixed=True),
        Configuration("strided-eval", "every second value of a longer array, in evaluation", THREE,
                      layout="strided", modes="e"),
    ]  # fmt: skip


def _dtypes() -> list[Configuration]:
    made = [
        Configuration("float64-few", "training in float64, few values", TWO, "float64", "float64"),
        Configuration("float64-train", "training in float64", FOUR, "float64", "float64"),
        Configuration("float64-eval", "evaluation in float64", FOUR, "float64", "float64",
                      modes="e"),
    ]  # fmt: skip
    for dtype in HALF:
        made += [
            Configuration(f"{dtype}-train", f"{dtype} input, float32 parameters", FOUR, dtype),
            Configuration(f"{dtype}-eval", f"{dtype} input, float32 parameters, evaluation",
                          FOUR, dtype, modes="e"),
            Configuration(f"{dtype}-all", f"{dtype} input and parameters", FOUR, dtype, dtype),
        ]  # fmt: skip
    return made


def _sizes() -> list[Configuration]:
    return [
        Configuration("two-values", "two values per channel", (2, 3)),
        Configuration("one-sample", "one sample with many positions", (1, 3, 4, 5)),
        Configuration("one-position", "many samples of 1 x 1", (9, 3, 1, 1)),
        Configuration("one-channel", "a single channel", (6, 1, 3, 4)),
        Configuration("many-channels", "300 channels", (4, 300)),
        Configuration("odd-sizes", "sizes that no vector width divides", (7, 5, 3, 11)),
        Configuration("long-sums", "2,000 values per channel", (8, 2, 10, 25)),
        *(
            Configuration(f"square-{ndim}d", "as wide as there are channels", shape, fixed=True)
            for ndim, shape in SQUARES.items()
        ),
        Configuration("one-value", "one value a channel in training: ValueError, or the bias",
                      (1, 3), kind="one value"),
        Configuration("one-value-1x1", "one value a channel in training: ValueError, or the bias",
                      (1, 3, 1, 1), kind="one value"),
        Configuration("one-value-eval", "one value a channel in evaluation", (1, 3), modes="e"),
        Configuration("empty", "a batch without samples in training: only the counter moves",
                      (0, 3, 4, 6), kind="empty"),
        Configuration("empty-eval", "a batch without samples in evaluation", (0, 3, 4, 6),
                      modes="e", kind="empty"),
    ]  # fmt: skip


def _numbers() -> list[Configuration]:
    return [
        Configuration("mean-1000", "a mean of 1000 standard deviations", FOUR, mean=1e3),
        Configuration("mean-minus-1000", "a mean of -1000 standard deviations", (40, 3), mean=-1e3),
        Configuration("mean-10000", "a mean of 10,000 standard deviations", FOUR, mean=1e4),
        Configuration("mean-1000-float64", "the same in float64", FOUR, "float64", "float64",
                      mean=1e3),
        Configuration("tiny-values", "std 1e-15 with eps 1e-30", FOUR, std=1e-15, eps=1e-30),
        Configuration("denormal-variance", "a variance below float32's normal range", FOUR,
                      std=1e-20, eps=1e-30),
        Configuration("overflow-float32", "one channel near float32's largest", FOUR,
                      values="overflow", kind="overflow"),
        Configuration("overflow-bfloat16", "one channel near bfloat16's largest", FOUR, "bfloat16",
                      values="overflow", kind="overflow"),
        Configuration("overflow-float16", "one channel near float16's largest: float32 holds all",
                      FOUR, "float16", values="overflow"),
        Configuration("nan", "NaN in one channel, which stays there", FOUR, values="nan",
                      kind="nan"),
        Configuration("nan-eval", "NaN in one value, which stays there", FOUR, values="nan",
                      modes="e", kind="nan"),
        Configuration("inf", "Inf in one channel, which stays there", FOUR, values="inf",
                      kind="inf"),
        Configuration("constant", "one channel is constant", FOUR, values="constant"),
        Configuration("zeros", "one channel is all 0", TWO, values="zeros"),
    ]  # fmt: skip


def _settings() -> list[Configuration]:
    return [
        Configuration("momentum-0", "momentum 0: the counter alone moves", FOUR, momentum=0.0),
        Configuration("momentum-1", "momentum 1: the batch's own statistics", TWO, momentum=1.0),
        Configuration("momentum-0.3", "momentum 0.3", FOUR, momentum=0.3),
        Configuration("momentum-0.01", "momentum 0.01", TWO, momentum=0.01),
        Configuration("momentum-none", "momentum None: the cumulative average, 5th batch", FOUR,
                      momentum=None),
        Configuration("eps-0-eval", "eps 0 in evaluation, variances of 1e-4", FOUR, eps=0.0,
                      modes="e", std=0.01),
        Configuration("eps-large", "eps 1", FOUR, eps=1.0),
        Configuration("eps-large-eval", "eps 1 in evaluation", TWO, eps=1.0, modes="e"),
        Configuration("eps-1e-3", "eps 1e-3, and values of about that variance", TWO, eps=1e-3,
                      std=0.03),
        Configuration("no-affine", "no weight and bias", FOUR, affine=False),
        Configuration("no-affine-eval", "no weight and bias in evaluation", TWO, affine=False,
                      modes="e"),
        Configuration("no-statistics", "no running statistics", FOUR, track_running_stats=False),
        Configuration("no-statistics-eval", "evaluation without running statistics: the batch's",
                      FOUR, track_running_stats=False, modes="e"),
        Configuration("signed-weight", "weights of either sign, and one of 0", FOUR, signed=True),
        Configuration("signed-weight-eval", "the same in evaluation", TWO, signed=True, modes="e"),
    ]  # fmt: skip


def _steps() -> list[Configuration]:
    return [
        Configuration("steps", "three batches of other sizes", FOUR, modes="ttt",
                      batches=(8, 2, 5)),
        Configuration("steps-cumulative", "momentum None from the first batch on", TWO,
                      modes="tttt", batches=(12, 5, 9, 3), momentum=None, tracked=0),
        Configuration("train-then-eval", "evaluation with what training left", FOUR, modes="tte"),
        Configuration("eval-twice", "evaluation leaves the buffers as they are", TWO, modes="ee"),
        Configuration("eval-then-train", "training after evaluation", TWO, modes="ete"),
    ]  # fmt: skip


def every_configuration() -> tuple[Configuration, ...]:
    """All of them, the plain ones first."""
    return (
        *_ranks(), *_layouts(), *_dtypes(), *_sizes(), *_numbers(), *_settings(), *_steps(),
    )  # fmt: skip


def probe_of(configuration: Configuration, need: str) -> Configuration:
    """The plainest configuration with the same number of axes that needs this alone."""
    plain = Configuration("probe", "", SHAPES[configuration.ndim])
    for changes in (
        {},
        {"dtype": configuration.dtype, "parameter_dtype": configuration.parameter_dtype},
        {"momentum": configuration.momentum},
        {"affine": configuration.affine},
        {"track_running_stats": configuration.track_running_stats},
    ):
        made = replace(plain, **changes)
        if need in needs(made):
            return made
    return plain
