"""How the relations between the tensors of two layers are said."""

from __future__ import annotations

from bncli.changes.states.conventions.bessel import one_count
from bncli.changes.states.conventions.fitting import CLEAR, EPS, NEAR, Fit, Room
from bncli.light import dataclass
from bncli.model.changes import Found, State
from bncli.report import Certainty


@dataclass(frozen=True, slots=True)
class Words:
    """How a relation is said: what the odd file `says`, as a clause.

    `held` is what each odd tensor is, of the plain file's, and `undo` says how they are turned
    back; both may name `eps`, where the number is put if it is known.
    """

    says: str
    held: tuple[str, ...]
    undo: str = ""
    detail: str = ""

    def say(self, fit: Fit) -> Found:
        """The state, with its numbers."""
        eps = fit.value if any("eps" in held for held in self.held) else None
        plain = "first" if fit.forward else "second"
        told = [
            f"{_with_eps(held, eps)} is {leaf}"
            for held, leaf in zip(self.held, fit.relation.leaves, strict=False)
        ]
        what = f"{self.says} in the {fit.where} file"
        detail = f"With the {plain} file's tensors, {' and '.join(told)} of the {fit.where} file."
        undo = _with_eps(self.undo, eps)
        return Found(
            State.CONVENTION,
            what if eps is None else f"{what}, {f'eps {eps:g}' if eps else 'without eps'}",
            f"{detail} {self.detail}".rstrip(),
            numbers={
                "cause": fit.relation.cause,
                "odd_file": fit.where,
                "eps": eps,
                "residual": fit.residual,
            },
            hint=undo and f"In the {fit.where} file, replace {undo}.",
        )


def _with_eps(text: str, eps: float | None) -> str:
    """An expression with its eps, which stays a name where it is not known."""
    if eps == 0:
        return text.replace(" + eps", "").replace(" - eps", "")
    return text if eps is None else text.replace("eps", f"{eps:g}")


def _times(k: float, room: Room) -> str:
    """A factor before what it multiplies: "2.5 times", "1/2.5 of"; as digits allow."""
    digits = room.decimals
    return f"{k:.{digits}g} times" if abs(k) > 1 else f"1/{1 / k:.{digits}g} of"


def said_of_constant(fit: Fit) -> Found:
    """A constant that was added to the variance, or subtracted from it."""
    constant = fit.values[0]
    size = abs(constant)
    own = {fit.plain.eps, fit.odd.eps}
    usual = any(abs(size - eps) <= NEAR * eps for eps in own.union(EPS))
    pairs = [(more, less) for more in EPS for less in EPS if more > less]
    two = next((pair for pair in pairs if abs(size - (pair[0] - pair[1])) <= NEAR * size), None)
    said = f"{size:g}" if usual else f"{size:.3g}"
    larger = "second" if constant > 0 else "first"
    reading = "Perhaps one of the files has an eps in its variance."
    if usual:
        reading = f"An eps was added to the variance of the {larger} file, or taken from the other."
    elif two:
        reading = f"It is the difference of two usual eps, {two[0]:g} and {two[1]:g}."
    undo = "Subtract {} from" if constant > 0 else "Add {} to"
    return Found(
        State.CONVENTION,
        f"eps {said} is in the variance of the {larger} file"
        if usual
        else f"the variance is larger by {said} in the {larger} file",
        f"running_var is larger by {said} in every channel of the {larger} file. {reading}",
        Certainty.CERTAIN if usual else Certainty.LIKELY,
        {
            "cause": "eps-in-variance",
            "odd_file": larger,
            "eps": size if usual else None,
            "constant": constant,
            "residual": fit.residual,
        },
        f"{undo.format(said)} running_var in the second file, or give the layer the eps that "
        "belongs to it.",
    )


def said_of_scale(fit: Fit) -> Found:
    """Mean and variance times one factor: a weight that they were not divided by."""
    k = fit.values[0]
    count = one_count(k, fit.room.ulp)
    larger, less = ("second", "first") if k > 1 else ("first", "second")
    detail = (
        f"Caffe stores both statistics times a weight, which is its third blob: those of the "
        f"{larger} file were perhaps not divided by it."
    )
    if count is not None:
        detail = (
            f"The factor is n/(n - 1) with n = {count}: the {larger} file perhaps has the mean "
            "multiplied like an unbiased variance."
        )
    return Found(
        State.CONVENTION,
        f"running_mean and running_var are {_times(k, fit.room)} the first file's",
        f"{detail} The {less} file has the smaller statistics.",
        Certainty.LIKELY,
        {"cause": "scale-factor", "odd_file": larger, "k": k, "n": count, "residual": fit.residual},
        f"Divide running_mean and running_var by {max(k, 1 / k):.7g} in the {larger} file.",
    )


def said_of_input(fit: Fit) -> Found:
    """The mean k times and the variance k^2 times: the input of the layer was scaled by k."""
    k = fit.values[0]
    images = " This is the factor between images of 0 to 255 and of 0 to 1."
    known = abs(max(abs(k), 1 / abs(k)) / 255 - 1) < NEAR
    square = f"{_times(k * k, fit.room)}{' it' * (abs(k) < 1)}"
    return Found(
        State.CONVENTION,
        f"running_mean is {_times(k, fit.room)} the first file's, running_var {square}",
        "This is what an input gives that was multiplied by one factor, or a layer before it whose "
        f"weights were.{images if known else ''}",
        Certainty.LIKELY,
        {"cause": "input-scaled", "k": k, "residual": fit.residual},
        f"Divide running_mean by {k:.7g} and running_var by {k * k:.7g} in the second file, or "
        "scale what goes into it.",
    )


def said_of_mean(fit: Fit) -> Found:
    """The mean alone, times one factor: its sign was flipped, or it was scaled."""
    k = fit.values[0]
    flipped = abs(k + 1) < CLEAR * fit.room.ulp
    return Found(
        State.CONVENTION,
        "the sign of running_mean is flipped"
        if flipped
        else f"running_mean is {_times(k, fit.room)} the first file's, running_var is the same",
        "" if flipped else "A scale was perhaps taken out of the one statistic and not the other.",
        Certainty.CERTAIN if flipped else Certainty.LIKELY,
        {
            "cause": "mean-negated" if flipped else "mean-scaled",
            "k": -1.0 if flipped else k,
            "residual": fit.residual,
        },
        "Multiply running_mean by -1 in the second file."
        if flipped
        else f"Divide running_mean by {k:.7g} in the second file.",
    )
