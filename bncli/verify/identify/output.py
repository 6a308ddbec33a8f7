"""The answer to "which normalisation made this output?": a ranking, and its best in a sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.dtypes import DTYPES
from bncli.errors import TensorError
from bncli.light import dataclass
from bncli.verify.identify.activation import after_relu, lacks_negatives
from bncli.verify.identify.doubt import differ_in_eps, doubt_of, nearly_same
from bncli.verify.identify.family import family
from bncli.verify.identify.halves import EpsRange, by_one_rounding, is_broad, range_text
from bncli.verify.identify.hypotheses import (
    EVAL,
    TRAINING,
    Hypothesis,
    Known,
    batch_norms,
    eps_text,
    plain_batch_norms,
)
from bncli.verify.identify.implied import Implied
from bncli.verify.identify.nonfinite import NotFinite
from bncli.verify.identify.pair import representable
from bncli.verify.identify.parts import parts_of_batch
from bncli.verify.identify.said import Said, apart
from bncli.verify.identify.search import LEVELS, SINGLE, Candidate, Seen, candidates, fitted, ranked
from bncli.verify.identify.views import layouts, other_axes, reordered, roundings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.verify.identify.pair import ArraySource, FileSource, View

MOST_SHOWN = 24
"""Hypotheses that an answer lists."""

BESIDE = 8
"""How many of those explain nothing."""


@dataclass(frozen=True, slots=True)
class Identification:
    """What was found: the hypotheses best first, and the best of them in a sentence.

    `name` is what the output is called. `confident` says that one hypothesis explains the output,
    and none of another meaning does. `expected` says that PyTorch's own way with the expected eps
    is among those that explain it. `tried` counts the hypotheses, and `channels` those without NaN
    and Inf, which were looked at. `implied` is what the output itself says, where no hypothesis
    explains it, and `not_finite` the NaN and Inf in the output alone. `eps_range` holds every eps
    with which the best explains it, None where half precision leaves no more than one. `engines`
    names what summed the input's values; see `bncli.model.ChannelStats`.
    """

    name: str
    hypotheses: tuple[Candidate, ...]
    said: Said
    confident: bool
    expected: bool
    tried: int
    channels: int
    implied: Implied | None = None
    not_finite: NotFinite | None = None
    eps_range: EpsRange | None = None
    engines: tuple[str, ...] = ()

    @property
    def best(self) -> str:
        """The answer in sentences."""
        return self.said.text

    @property
    def way(self) -> str:
        """How the best computed the output, after "computed"; there has to be one."""
        return _way(self.hypotheses[0], self.eps_range)

    @property
    def explained(self) -> bool:
        """Whether any hypothesis explains the output."""
        return bool(self.hypotheses) and self.hypotheses[0].explains


def identify_output(
    x: ArraySource | FileSource,
    y: ArraySource | FileSource,
    channel_axis: int,
    known: Known,
    name: str = "OUTPUT",
    shards: Sequence[int] = (),
) -> Identification:
    """Try every hypothesis. `channel_axis` counts from the front; `name` is for the sentence.

    `shards` are the samples of each INPUT, where `x` is several of them one after the other.

    Raises TensorError where the shapes do not fit.
    """
    if y.dtype == "float64" and representable(y, "float32"):
        y = replace(y, dtype="float32")  # it was computed so, and widened to be stored
    ways = layouts(x, y, channel_axis)
    if not ways:
        raise TensorError(
            f"the output has shape {list(y.shape)} and the input {list(x.shape)}; they must be "
            "equal, but for the place of the channels."
        )
    base = Seen.of(ways[0], known)
    channels = int(base.fit.ok.sum())
    if not channels:
        nothing = Said("nothing was compared: every channel holds NaN or Inf")
        odd = NotFinite.of(base, ())
        return Identification(
            name=name,
            hypotheses=(),
            said=nothing,
            confident=False,
            expected=False,
            tried=0,
            channels=0,
            not_finite=odd,
            engines=base.fit.stats.engines,
        )
    seen, found, free, in_family = _searched(base, ways[1:], shards)
    half = DTYPES[y.dtype].unit_roundoff > SINGLE  # whose statistics may be in half precision too
    order = ranked(found + free, lenient=half or base.view.sums_by_rows)
    order, eps_range = by_one_rounding(base, order)
    if eps_range and not is_broad(eps_range, fitted=order[0].hypothesis.fitted):
        eps_range = None
    explaining = [item for item in order if item.explains]
    tried = in_family + len(free) + _of_batch_norm(base, len(seen) - 1)
    implied = None if explaining else Implied.of(base)
    return Identification(
        name=name,
        hypotheses=tuple(order[: min(MOST_SHOWN, len(explaining) + BESIDE)]),
        said=_said(name, seen, base, order, tried, implied, eps_range),
        confident=bool(explaining)
        and eps_range is None
        and all(nearly_same(order[0], item) for item in explaining),
        expected=any(item.fits and item.hypothesis.is_expected(known) for item in order),
        tried=tried,
        channels=channels,
        implied=implied,
        eps_range=eps_range,
        engines=base.fit.stats.engines,
        not_finite=NotFinite.of(
            seen.get(order[0].hypothesis.view, base) if explaining else base,
            [item.hypothesis for item in explaining],
        ),
    )


def _searched(
    base: Seen, layouts: Sequence[View], shards: Sequence[int]
) -> tuple[dict[str, Seen], list[Candidate], list[Candidate], int]:
    """What each further search finds, until something explains the output.

    Returns the tensors by the names of their views, the candidates, those with fitted values, and
    how many hypotheses of the family and of parts of the batch were tried.
    """
    known = base.known
    seen = {base.view.name: base}
    found = candidates(base)
    free = []
    in_family = 0  # and of parts of the batch
    if not _explained(found) or base.view.shape[0] == 1:  # one sample may be an InstanceNorm's
        others_of_family, in_family = family(base.view, known)
        found += others_of_family
    if not _explained(found):
        of_parts, in_parts = parts_of_batch(base, shards)
        found += of_parts
        in_family += in_parts
    if not _explained(found):
        others = _other_ways_to_look(base, layouts)
        seen |= {other.view.name: other for other in others}
        for other in others:
            plain = plain_batch_norms(known, other.view.name, other.view.count)
            found += candidates(other, list(plain))
    relu = None if _explained(found) else after_relu(base)
    if relu is not None:
        seen[relu.view.name] = relu
        plain = plain_batch_norms(known, relu.view.name, relu.view.count)
        found += relu.measured(list(plain))
    if not _explained(found) or all(item.hypothesis.outside for item in found if item.told):
        free = fitted(base) + (fitted(relu) if relu is not None else [])
    return seen, found, free, in_family


def _other_ways_to_look(base: Seen, layouts: Sequence[View]) -> list[Seen]:
    """The tensors with these layouts, other axes, roundings and orders of channels."""
    views = (*layouts, *other_axes(base.view, base.known), *roundings(base.view))
    others = [*(Seen.of(view, base.known) for view in views), *reordered(base)]
    # A rounding that makes an input infinite leaves nothing to be explained.
    return [other for other in others if other.fit.ok.mean() >= base.fit.ok.mean()]


def _of_batch_norm(base: Seen, more_views: int) -> int:
    """How many hypotheses of BatchNorm are tried on the tensors and `more_views` others."""
    known, count = base.known, base.view.count
    plain = len(list(plain_batch_norms(known, "", count)))
    return len(list(batch_norms(known, "", count))) + more_views * plain


def _explained(found: list[Candidate]) -> bool:
    """Whether one of them explains the output, or fits and is what was expected."""
    return any(item.told or (item.plain and item.level < LEVELS) for item in found)


def _said(
    name: str,
    seen: dict[str, Seen],
    base: Seen,
    order: list[Candidate],
    tried: int,
    implied: Implied | None,
    eps_range: EpsRange | None,
) -> Said:
    """The best hypothesis, what the likeliest other one would leave, and what remains in doubt."""
    best = order[0]
    if not best.explains and best.fits:
        return Said(
            f"this input does not show how {name} was computed",
            doubt=f"{best.hypothesis.words} fits (largest difference {best.max_abs_diff:.2g}), but "
            "rounding may be as large as the output, so this explains nothing",
        )
    if implied is not None:
        return Said(
            f"none of {tried} hypotheses explains {name}",
            f"the nearest, {best.hypothesis.words}, is off by up to {best.max_abs_diff:.2g} in "
            f"channel {best.channel}",
            _affinity(base, implied),
        )
    left = seen.get(best.hypothesis.view, base)
    here, channels = int(left.fit.ok.sum()), left.view.num_features
    part = f" in {here} of {channels} channels" if here < channels else ""
    claim = (
        f"{name} was computed {_way(best, eps_range)}{part} "
        f"(largest difference {best.max_abs_diff:.2g})"
    )
    contrast = ""
    other = _contrast(best, order, base.known)
    if other is not None:
        hypothesis = other.hypothesis
        way = hypothesis.way
        if differ_in_eps(hypothesis, best.hypothesis):
            way = f"with eps {eps_text(hypothesis.eps)}"
        contrast = f"{way}, the output would {apart(other.max_abs_diff)} in channel {other.channel}"
    doubt = doubt_of(order, seen.get(best.hypothesis.view, base), eps_range)
    return Said(claim, contrast, doubt)


def _way(best: Candidate, eps_range: EpsRange | None) -> str:
    """How the best computed the output, with each eps that explains it."""
    if eps_range is None:
        return best.hypothesis.way
    plain = replace(best.hypothesis, fitted=False)
    return plain.way.replace(f"eps {eps_text(plain.eps)}", f"an eps {range_text(eps_range)}", 1)


def _contrast(best: Candidate, order: list[Candidate], known: Known) -> Candidate | None:
    """The hypothesis that one would have expected instead, if it does not explain the output."""
    mode = best.hypothesis.mode if best.hypothesis.mode in (TRAINING, EVAL) else known.likelier_mode
    for wanted_mode in (mode, known.likelier_mode, EVAL if mode == TRAINING else TRAINING):
        plain = Hypothesis(wanted_mode, 0 if wanted_mode == TRAINING else None, known.eps)
        for view in (best.hypothesis.view, ""):
            for item in order:
                if item.hypothesis == replace(plain, view=view) and item is not best:
                    if not item.explains:
                        return item
                    break
    return None


def _affinity(base: Seen, implied: Implied) -> str:
    """Whether the output is an affine map of each channel, as every BatchNorm's is."""
    worst = implied.worst
    if worst is not None and lacks_negatives(base):
        return "no value is negative: OUTPUT may have been taken after an activation such as ReLU"
    if worst is not None:
        return (
            f"BatchNorm did not make it from this input: channel {worst} is not a multiple of the "
            f"input plus a constant (off by {implied.off[worst]:.2g})"
        )
    if implied.tells_nothing:
        return "Each channel of the input holds one value, so any map may have made the output"
    return (
        "In each channel it is a multiple of the input plus a constant, so BatchNorm may have made "
        "it with another weight, bias or statistics than those given"
    )
