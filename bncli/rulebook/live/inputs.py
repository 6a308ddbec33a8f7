"""BN805, BN810, BN813: inputs that are not those of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import np
from bncli.report import Certainty, Finding, Severity, Value
from bncli.rulebook.interface import Rule, percent
from bncli.rulebook.live.evidence import Evidence, at_layers, off_by
from bncli.rulebook.live.measures import EVALUATED
from bncli.rulebook.live.scatter import first_seen

if TYPE_CHECKING:
    from bncli.model.capture import InputSums
    from bncli.rulebook.live.measures import LayerMeasure

SCALED = Rule(
    "BN805",
    "input-scaled",
    Severity.WARNING,
    "the input is scaled or shifted compared with that of training",
    "Prepare the data as in training: divide by 255, subtract the mean and divide by the standard "
    "deviation in the same way, and as often.",
    symptom="The model is good in training mode, in which the first layer normalises with its "
    "batch, and useless in evaluation.",
    arithmetic="The first layer is off, and later ones less, because the first "
    "one normalises the scale away in training mode. Where a convolution reads the input, the "
    "channel means of the training data follow from running_mean = kernel sums * means + bias; the "
    "means of these data differ from them. The simplest maps are tried: division by 255 where "
    "whole numbers "
    "above 30 came in, subtraction of the mean, standardisation.",
    certainty="Certain where one of these maps closes four fifths of the gap or more, and the "
    "training data's means are known and differ from those of these data. Likely where they are "
    "not known, or "
    "nothing was tried.",
    lookalike="Data that are darker, noisier or blurred are of another domain (BN810): no simple "
    "map closes the gap. A first layer whose statistics alone were spoilt is BN808.",
    seen=("jchen42703/kits19-cnn#22", "bearpaw/pytorch-pose#4"),
    less_sure=(Certainty.LIKELY,),
)
OTHER_DOMAIN = Rule(
    "BN810",
    "other-domain",
    Severity.WARNING,
    "the data look as if they came from another domain than the training data",
    "Check whether these data should look like those of training. If they should not, give "
    "a copy of the model statistics of the new domain, and compare a metric.",
    symptom="The model is good on its own data and worse on those of another camera, site or "
    "season, and better again in training mode.",
    arithmetic="The first layer is off, more than most of the others, while its statistics and "
    "the weights come from the same training: running_mean = kernel sums * means + bias holds, "
    "or where "
    "that is not known, later layers are off by at most half as much. No simple map of the input "
    "closes the gap.",
    certainty="Likely. Certain where the training data's capture is given and the stored "
    "statistics fit it.",
    lookalike="Preprocessing that was left out (BN805), padding (BN813), and batches of one domain "
    "each in training, which leave too small a running_var, show in the first layer too.",
    seen=("wasidennis/AdaptSegNet#79",),
    sure=Certainty.LIKELY,
    less_sure=(Certainty.CERTAIN,),
)
CONSTANT = Rule(
    "BN813",
    "constant-input",
    Severity.WARNING,
    "a large share of the input's values is one number, as in padding or masks",
    "Find out whether training had the same padding. If it did not, crop to the content, pad less, "
    "or leave padded values out of the statistics.",
    symptom="Evaluation is worse on small images or short sequences than on large or long ones.",
    arithmetic="More than 10% of the input's values equal its minimum, its maximum or 0, and the "
    "first layer is off. Such values draw its means to their own, and change its variances.",
    certainty="Likely: the share is certain, but it is not known what training saw.",
    lookalike="The black background of medical or handwritten images is part of the data; the "
    "stored statistics then fit it, and nothing is reported.",
    sure=Certainty.LIKELY,
)

LATER = 1 / 2
"""The predicted error of later layers over that of the first, from which the input is suspected."""

CLOSES = 0.8
"""The share of the gap that a map of the input closes at least, for it to be named. Images that are
blurred, with less contrast and more light, are brought back by 0.5 to 0.8 when they are
standardised, and those that were not normalised by 0.87 or more when they are."""

CLOSES_ALL = 0.95
"""The share from which it does not matter what is left."""

LEFT = 1.5
"""How many times its floor the gap is at most afterwards: 1.3 in images that were not normalised,
and 3 in blurred ones."""

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's channels, of pixels from 0 to 1."""

NEAR = 0.15
"""How many standard deviations a prepared input's means are from those of training at most."""

FAR = 3.0
"""The predicted error that data of another domain do not reach, where no map was tried."""

SHARE = 0.1
"""The share of the input's values at one number from which that is worth a word."""

WHOLE = 30.0
"""The maximum of values that were not divided by 255."""


def input_suspected(found: Evidence) -> bool:
    """Whether maps of the input are worth a trial: the first layer is off, and the others less."""
    first = found.first
    if first is None or not found.first_blamed:
        return False
    others = [each.error for each in found.living if each is not first]
    possible = found.fits is not False or _undivided(found) is not None
    return possible and first.error >= max(others, default=0.0)


def check_scaled(found: Evidence) -> list[Finding]:
    """BN805: a map of the input closes the gap, or would by the numbers."""
    first = found.first
    if first is None or not found.first_blamed:
        return []
    if (best := found.best("input")) is not None:
        trial, share = best
        left = (trial.gap or 0.0) / (found.capture.gap_floor or 1.0)
        if share < CLOSES or (share < CLOSES_ALL and left > LEFT):
            return []
        return [
            at_layers(
                SCALED,
                [first.name],
                f"{share:.0%} of the gap above its floor closes with the {trial.what}",
                {"map": trial.what, "closes": share, **trial.numbers, **_means(found, first)},
                detail=_by_the_means(found, first),
                hint=f"Feed the model the {trial.what}, as in training.",
                sure=None if found.elsewhere else Certainty.LIKELY,
            )
        ]
    if found.trials is not None and any(t.kind == "input" for t in found.trials.trials):
        return []
    return _by_numbers(found, first)


def _by_numbers(found: Evidence, first: LayerMeasure) -> list[Finding]:
    """BN805 without a trial: the first layer alone is off, and the input's means are elsewhere."""
    later = _later(found, first)
    fitting = _fitting(found, first)
    if fitting and found.elsewhere:
        return [
            at_layers(
                SCALED,
                [first.name],
                f"with the input {fitting}, its means would be those of training",
                {"map": fitting, **_means(found, first)},
                detail=_by_the_means(found, first),
                hint=f"Feed the model the input {fitting}, as in training.",
                sure=Certainty.LIKELY,
            )
        ]
    whole = _undivided(found)
    far = found.elsewhere and first.error > FAR
    if later > LATER * first.error or found.fits is False or not (far or whole):
        return []
    detail = _by_the_means(found, first)
    if whole:
        detail += f" The input reaches {whole:g}, as 8-bit values do that were not divided by 255."
    return [
        at_layers(
            SCALED,
            [first.name],
            f"the first layer is off by {off_by(first)}, and later ones by {later:.3g} at most",
            _means(found, first),
            detail=detail.strip(),
            sure=Certainty.LIKELY,
        )
    ]


def _fitting(found: Evidence, first: LayerMeasure) -> str:
    """The usual preparation that brings the input's means to those of training; "" for none."""
    record = input_record(found)
    if record is None or first.origin is None:
        return ""
    one = np.ones(record.num_features)
    usual = [("divided by 255", one / 255, 0 * one)]
    if record.num_features == len(IMAGENET[0]):
        mean, std = np.array(IMAGENET[0]), np.array(IMAGENET[1])
        less = "less ImageNet's mean, over its standard deviation"
        usual += [
            (less, 1 / std, -mean / std),
            (f"divided by 255, {less}", 1 / std / 255, -mean / std),
            ("times ImageNet's standard deviation, plus its mean", std, mean),
        ]
    with np.errstate(all="ignore"):
        for what, scale, shift in usual:
            away = scale * record.mean + shift - first.origin.means
            if np.square(away / (scale * np.sqrt(record.var))).mean() < NEAR**2:
                return what
    return ""


def check_domain(found: Evidence) -> list[Finding]:
    """BN810: the first layer is off, its statistics fit the weights, and no map closes the gap."""
    known = _by_reference(found)
    first = found.first
    if known is None and not _first_most(found):
        return []
    where = known or [each.name for each in found.blamed]
    off = {each.name: each for each in found.measures}
    said = f"the first layer is off by {off_by(first)}" if first is not None else ""
    if known is not None:
        worst = max((off[name] for name in known), key=lambda each: each.error)
        said = f"off by up to {off_by(worst)} here, and within noise on the training data"
        return [at_layers(OTHER_DOMAIN, where, said, sure=Certainty.CERTAIN)]
    assert first is not None
    if first.origin is not None:
        said += f", and its statistics fit the weights (residual {first.origin.residual:.2g})"
    else:
        said += f", and later ones by {_later(found, first):.3g} at most"
    return [
        at_layers(
            OTHER_DOMAIN,
            where,
            said,
            _means(found, first),
            detail=f"{_spread(first)} {_best_map(found)}".strip(),
        )
    ]


def _first_most(found: Evidence) -> bool:
    """Whether the first layer is blamed, and its statistics are of the weights' own training.

    Where that is not known, it has to be off by far more than later layers.
    """
    first = found.first
    if first is None or not found.first_blamed or found.fits is False:
        return False
    return found.fits is True or _later(found, first) <= LATER * first.error


def _later(found: Evidence, first: LayerMeasure) -> float:
    """The largest predicted error of the layers behind the first."""
    return max((each.error for each in found.living if each is not first), default=0.0)


def _best_map(found: Evidence) -> str:
    """What the best map of the input closes, as a sentence."""
    best = found.best("input")
    if best is None or best[1] <= 0:
        return ""
    trial, share = best
    return (
        f"The best map of those tried ({trial.what}) closes {share:.0%} of the gap above its floor."
    )


def _by_reference(found: Evidence) -> list[str] | None:
    """The blamed layers whose statistics fit the training data; None where that is not known."""
    if found.reference is None:
        return None
    names = [each.name for each in found.blamed]
    known = [name for name in names if name in found.reference]
    if not known or any(found.reference[name].blamed for name in known):
        return None
    return known


def check_constant(found: Evidence) -> list[Finding]:
    """BN813: a share of the input at one number, and the first layer off."""
    first, record = found.first, input_record(found)
    if record is None or first is None or not found.first_blamed or found.fits is False:
        return []
    share, number = share_at_one(record)
    if share <= SHARE:
        return []
    return [
        at_layers(
            CONSTANT,
            [first.name],
            f"{percent(share)} of the input's values are {number:.6g}",
            {"share": share, "number": number},
            detail=f"The first layer is off by {off_by(first)}. {_spread(first)}",
        )
    ]


def input_record(found: Evidence) -> InputSums | None:
    """What came into the model; None where that has no floating-point tensor."""
    source = found.capture.input
    return None if source is None else first_seen(source, EVALUATED)


def share_at_one(record: InputSums) -> tuple[float, float]:
    """The largest share of the input's values at one number, of all channels, and the number."""
    total = record.values * record.num_features
    low, high = float(np.nanmin(record.min)), float(np.nanmax(record.max))
    shares = (
        (int(record.at_zero.sum()), 0.0),
        (int(record.at_min[record.min == low].sum()), low),
        (int(record.at_max[record.max == high].sum()), high),
    )
    count, number = max(shares, key=lambda pair: pair[0])
    return count / total, number


def _undivided(found: Evidence) -> float | None:
    """The input's maximum, if it is above what divided values reach and nothing is negative."""
    record = input_record(found)
    if record is None or not np.isfinite(record.max).any():
        return None
    high, low = float(np.nanmax(record.max)), float(np.nanmin(record.min))
    return high if low >= 0 and high > WHOLE else None


def _means(found: Evidence, first: LayerMeasure) -> dict[str, Value]:
    """The means that training had and those that came, as evidence."""
    record = input_record(found)
    if first.origin is None or record is None:
        return {}
    return {"training_means": first.origin.means.tolist(), "input_means": record.mean.tolist()}


def _by_the_means(found: Evidence, first: LayerMeasure) -> str:
    """What the training data's means were, and what came, as a sentence."""
    record = input_record(found)
    if first.origin is None or record is None or found.fits is not True:
        return ""
    return (
        f"According to the checkpoint, the training data's channel means were "
        f"{_several(first.origin.means)}"
        f"; here they are {_several(record.mean)}."
    )


def _several(means: np.ndarray) -> str:
    said = ", ".join(f"{mean:.3g}" for mean in means[:3])
    return f"{said}, ..." if len(means) > 3 else said


def _spread(first: LayerMeasure) -> str:
    """How the first layer is off, as a sentence."""
    low, high = first.var_ratio_min or 0.0, first.var_ratio_max or 0.0
    return (
        f"In the median channel, its mean is {first.z_median or 0:.2g} std away from the stored "
        "one, and "
        f"its variances are {low:.3g} to {high:.3g} times the stored ones."
    )
