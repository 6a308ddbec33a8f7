"""BN617 to BN619, BN622: what many files with the same layers show."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from bncli.light import np
from bncli.model.many import Kind, Made
from bncli.report import Certainty, Finding, Severity
from bncli.rulebook.changes import DIFFERENT, LOST
from bncli.rulebook.interface import Rule, examples, percent, times
from bncli.rulebook.layers import label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.model.many import Jump, Many, Origin, Ranks, Spoilt, Still, Stranger

MIXED = Rule(
    "BN617",
    "target-mixed",
    Severity.WARNING,
    "the target is not an average of the files in all its parts",
    "Average the running statistics along with the parameters, or re-estimate them with bncli "
    "recalibrate.",
    symptom="An averaged or merged model is much worse in evaluation than the files that it was "
    "made of.",
    arithmetic="Parameters, statistics and counters of the target are each compared with those "
    "of the files: with each file, with the mean of all or of some, with the statistics of all "
    "data together (running_var is then the mean of var + (mean - total mean)^2), with a "
    "weighted sum (least squares over all values), and with one that holds the initial 0 and 1 "
    "as well. It is a warning if the parameters are averaged and the statistics are one file's, "
    "while those of the files differ; if the statistics hold a share of the initial 0 and 1; and "
    "if tensors were summed and not divided by the number of files, or the weights of a sum do "
    "not add up to 1. Summed counters are a note.",
    certainty="Certain where a sum agrees within the rounding of the dtype and the files are "
    "much further apart than that. Likely where they are not, or where the share of the initial "
    "values is estimated from an average of other states.",
    lookalike="After update_bn or a recalibration, the statistics are none of the files' and no "
    "mean of them: nothing is reported.",
    less_sure=(Certainty.LIKELY,),
    milder=Severity.INFO,
    seen=("TsingZ0/PFLlib#269", "espnet/espnet#2283", "huggingface/pytorch-image-models#245"),
)
JUMP = Rule(
    "BN618",
    "series-jump",
    Severity.WARNING,
    "the running statistics jump in one file of a series",
    "Use another file of the series, or re-estimate the statistics with bncli recalibrate, and "
    "look at the last batches before it was saved.",
    symptom="Validation is bad at one epoch, and good before and after it.",
    arithmetic="In half of a layer's channels or more, the statistics move at least 5 times as far "
    "as they usually do from one file of the series to the next, and at least as far as 1 standard "
    "deviation or a factor of 4 in the variance. It is a warning if a later file has come back, "
    "and otherwise a note.",
    certainty="Certain as a fact. That some batches were unlike the others is the likely cause.",
    lookalike="A change of the data, of the learning rate or of the phase of training makes "
    "statistics jump, too; they do not come back then.",
    milder=Severity.INFO,
)
UNSYNCED = Rule(
    "BN619",
    "ranks-differ",
    Severity.WARNING,
    "files with equal counters or parameters have different running statistics",
    "Use SyncBatchNorm, or average the buffers over the ranks before one of them is saved.",
    symptom="Evaluation depends on the rank that saved the checkpoint, or that runs it.",
    arithmetic="num_batches_tracked is equal in all files, or missing. It is a warning if weight, "
    "bias and the weights in front of the layers agree in every bit that was read, while "
    "running_mean or running_var do not: then each process kept statistics of its own batches. If "
    "the parameters differ too, these are clients or separate runs: a note.",
    certainty="Certain as a fact.",
    lookalike="A file that was recalibrated differs from its original in the same way.",
    milder=Severity.INFO,
    seen=(
        "pytorch/pytorch#111138",
        "open-mmlab/mmdetection#2539",
        "pytorch/pytorch#22192",
    ),
)
STILL = Rule(
    "BN622",
    "series-still",
    Severity.WARNING,
    "the running statistics of some layers stand still while those of others move",
    "Keep these layers in train() while their weights are trained, or re-estimate their statistics "
    "with bncli recalibrate.",
    symptom="The network trains well, and gets worse in evaluation from file to file.",
    arithmetic="running_mean and running_var keep every bit through two steps of the series or "
    "more, up to its end, while those of other layers move. It is a warning if the layer's "
    "weight or bias moves (in a layer without them, the weights in front of it), and otherwise a "
    "note: a frozen layer.",
    certainty="Certain as a fact.",
    lookalike="A layer that is frozen as a whole stands still on purpose: a note, also where the "
    "convolution in front of it is trained.",
    milder=Severity.INFO,
    seen=("pytorch/executorch#21056", "FlyreelAI/sesemi#36"),
)

WHOLE = 0.01
"""By how much the weights of an average may add up to more or less than 1."""

AVERAGED = (Made.MEAN, Made.SUBSET, Made.WEIGHTED, Made.POOLED)
STATISTICS = ("statistics", "running_mean", "running_var")
PARAMETERS = ("parameters", "weight and bias", "layers before")


def many_findings(many: Many) -> list[Finding]:
    """What many files show, each finding about the file that it is in."""
    if many.kind is Kind.TARGET:
        found = [*_mixed(many), *_initial(many), *_summed(many), *_short(many)]
        # What follows from a likely match of the layers is likely, too.
        sure = {Certainty.CERTAIN: many.sure}
        found = [
            replace(each, path=many.target, certainty=sure.get(each.certainty, each.certainty))
            for each in found
        ]
        return [*map(_spoilt, many.spoilt), *found]
    found = [*map(_spoilt, many.spoilt)]
    found += [_stranger(stranger, len(many.paths)) for stranger in many.strangers]
    found += [_jump(jump, many.paths) for jump in many.jumps]
    found += [_still(still, many) for still in many.stills]
    if many.ranks is not None and many.kind in (Kind.RANKS, Kind.CLIENTS):
        found.append(_differ(many, many.ranks))
    return found


def _rows(many: Many, groups: tuple[str, ...]) -> list[Origin]:
    return [origin for origin in many.origins if origin.group in groups]


def _mixed(many: Many) -> list[Finding]:
    """Parameters that are averaged beside statistics that are one file's."""
    averaged = [row for row in _rows(many, PARAMETERS) if row.made in AVERAGED]
    alone = [row for row in _rows(many, STATISTICS) if row.made is Made.FILE]
    if not averaged or not alone:
        return []
    what = "the statistics are" if alone[0].group == "statistics" else f"{alone[0].group} is"
    detail = f"The parameters are {averaged[0].what}."
    if averaged[0].group != "parameters":
        detail = f"Of the parameters, {averaged[0].group} are {averaged[0].what}."
    likely = Certainty.LIKELY in (averaged[0].certainty, alone[0].certainty)
    return [
        MIXED.finding(
            "statistics",
            f"{what} {alone[0].what}, while the parameters are averaged",
            {
                "parameters": averaged[0].made.value,
                "statistics": alone[0].made.value,
                "weights": [*averaged[0].weights],
                "statistics_weights": [*alone[0].weights],
            },
            detail=detail,
            sure=Certainty.LIKELY if likely else Certainty.CERTAIN,
        )
    ]


def _initial(many: Many) -> list[Finding]:
    """Statistics that still hold a share of the initial 0 and 1."""
    return [
        MIXED.finding(
            row.group,
            f"{'about ' if row.certainty is Certainty.LIKELY else ''}{percent(row.initial)} of "
            f"{_the(row.group)} is still the initial "
            f"{'1' if row.group == 'running_var' else '0 and 1'}",
            {"made": row.made.value, "initial": row.initial, "weights": [*row.weights]},
            detail="running_var = q + (1 - q) * var in every channel, with the files' variances "
            "and q the share of the initial value.",
            hint="Copy the statistics of the live model, or re-estimate them with bncli "
            "recalibrate. A larger decay forgets the initial value more slowly.",
            sure=row.certainty,
        )
        for row in _rows(many, STATISTICS)
        if row.made is Made.INITIAL and row.initial is not None
    ]


def _summed(many: Many) -> list[Finding]:
    """Tensors, or counters, that are sums of those of the files."""
    found = [
        MIXED.finding(
            row.group,
            f"{_the(row.group)} {'is' if row.group.startswith('running_') else 'are'} the sum of "
            f"{len(many.paths)} files, not divided by their number",
            {"made": row.made.value, "files": len(many.paths)},
            hint="Divide the sums by the number of files.",
            sure=row.certainty,
        )
        for row in _rows(many, (*PARAMETERS, *STATISTICS))
        if row.made is Made.SUM
    ]
    found += [
        MIXED.finding(
            "counters",
            f"num_batches_tracked is the sum of that of {np.count_nonzero(row.weights)} files",
            {"made": row.made.value, "files": int(np.count_nonzero(row.weights))},
            hint="Nothing needs fixing, unless momentum is None: the next batch then weighs too "
            "little.",
            severity=Severity.INFO,
        )
        for row in _rows(many, ("counters",))
        if row.made is Made.SUM and not found
    ]
    return found


def _short(many: Many) -> list[Finding]:
    """Sums whose weights do not add up to 1, so that they are no averages."""
    return [
        MIXED.finding(
            row.group,
            f"the weights of {_the(row.group)} add up to {percent(sum(row.weights))}, not 100%",
            {"made": row.made.value, "weights": [*row.weights]},
            hint="Divide the sum by the sum of its weights.",
            sure=row.certainty,
        )
        for row in _rows(many, (*PARAMETERS, *STATISTICS))
        if row.made is Made.WEIGHTED and row.unique and abs(sum(row.weights) - 1) > WHOLE
    ]


def _the(group: str) -> str:
    """A group of tensors as a sentence names it."""
    return group if group.startswith("running_") else f"the {group}"


def _spoilt(spoilt: Spoilt) -> Finding:
    """A file in which layers hold what training does not give."""
    names = tuple(map(label, spoilt.layers))
    hint = "Take the statistics from another file, or re-estimate them with bncli recalibrate."
    if {"weight", "bias"} & {*spoilt.tensors}:
        hint = "Take another file: training does not lead back from NaN or Inf."
    return replace(
        LOST.finding(
            names[0],
            spoilt.what,
            {
                "file": spoilt.path,
                "state": spoilt.state.value,
                "layers": [*names],
                "tensors": [*spoilt.tensors],
            },
            hint=hint,
            extent=names,
            places=names,
        ),
        path=spoilt.path,
    )


def _stranger(stranger: Stranger, others: int) -> Finding:
    """A file of another network among files of one."""
    names = tuple(map(label, stranger.layers))
    return replace(
        DIFFERENT.finding(
            names[0],
            f"the weights are not correlated with those of the other {others} files",
            {"file": stranger.path, "files": others, "layers": [*names]},
            detail="Networks that were trained apart, each from its own start, look like this.",
            hint="Leave this file out, or give the one that belongs to the others.",
            places=names,
        ),
        path=stranger.path,
    )


def _jump(jump: Jump, paths: Sequence[str]) -> Finding:
    """A file in which statistics jump."""
    more = len(jump.layers) - 1
    where = f", as in {more} more layer{'s' * (more > 1)}" if more else ""
    after = {
        True: "A later file has come back.",
        False: "The files after it stay there.",
        None: "It is the last file: whether the next would come back cannot be told.",
    }[jump.back]
    first = jump.path == paths[0]
    if first:
        after = "It is the first file: it may be spoilt, or training was at another point."
    return replace(
        JUMP.finding(
            label(jump.worst),
            f"the means {'are off' if first else 'move'} by {jump.z:.3g} std, the variances are "
            f"{_times(jump.var_ratio)}{' as in the next file' * first}",
            {
                "file": jump.path,
                "files": len(paths),
                "layers": [*jump.layers],
                "z": jump.z,
                "var_ratio": jump.var_ratio,
                "times": jump.times if math.isfinite(jump.times) else None,
                "back": jump.back,
            },
            detail=f"This is {times(jump.times)} the layer's usual step from file to file{where}. "
            f"{after}",
            hint=""
            if jump.back
            else f"Look at what changed in training {'after' if first else 'before'} this file.",
            severity=Severity.WARNING if jump.back else Severity.INFO,
            extent=jump.layers,
        ),
        path=jump.path,
    )


def _still(still: Still, many: Many) -> Finding:
    """Layers whose statistics stand still up to the last file."""
    since = PurePath(still.since).name
    count = len(many.paths) - many.paths.index(still.since)
    moved = {True: "their weights move", False: "their weights stand still, too", None: ""}
    return replace(
        STILL.finding(
            label(still.layers[0]),
            f"no bit of the statistics moves in the last {count} files, from {since} on",
            {
                "layers": [*still.layers],
                "since": still.since,
                "weights_moved": still.weights_moved,
            },
            detail=_sentence(
                f"the same holds for {examples(still.layers[1:])}" if still.layers[1:] else "",
                moved[still.weights_moved],
            ),
            hint="" if still.weights_moved else "Nothing needs fixing if the layer is frozen.",
            severity=Severity.WARNING if still.weights_moved else Severity.INFO,
            extent=still.layers,
        ),
        path=many.paths[-1],
    )


def _times(ratio: float) -> str:
    """A ratio of variances: "1002 times as large"."""
    return f"{f'{ratio:.4g} times' if math.isfinite(ratio) else times(ratio)} as large"


def _sentence(*parts: str) -> str:
    """Parts as sentences."""
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts if part)


def _differ(many: Many, ranks: Ranks) -> Finding:
    """Statistics that differ between files with equal counters."""
    file, files = PurePath(ranks.path).name, len(many.paths)
    equal = many.kind is Kind.RANKS
    if ranks.factor is not None:
        others = "the first other file's" if files > 2 else "the other's"
        claim = f"running_var of {file} is {ranks.factor:.5g} times {others} in every channel"
    else:
        claim = (
            f"{file} is furthest from the other{'s' * (files > 2)}: a mean is off by "
            f"{ranks.z:.3g} std, "
            f"a variance is {_times(ranks.var_ratio)}"
        )
    counts = ""
    if ranks.counts is not None:
        n, m = ranks.counts
        counts = f"this is n/(n - 1) over m/(m - 1), for instance with n = {n} and m = {m}"
    parameters = (
        "weight and bias of all files agree in every bit that was read"
        if equal
        else f"the parameters of these {files} files differ, too: clients or separate runs"
    )
    return replace(
        UNSYNCED.finding(
            label(ranks.worst),
            claim,
            {
                "file": ranks.path,
                "files": files,
                "layers": [*ranks.layers],
                "parameters_equal": equal,
                "z": ranks.z,
                "var_ratio": ranks.var_ratio,
                "factor": ranks.factor,
                "counts": None if ranks.counts is None else [*ranks.counts],
            },
            detail=_sentence(parameters, counts),
            hint=""
            if equal
            else "Nothing needs fixing. If these files are merged, average their statistics, too.",
            severity=Severity.WARNING if equal else Severity.INFO,
            extent=ranks.layers,
        ),
        path=ranks.path,
    )
