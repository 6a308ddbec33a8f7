"""BN908: ranks of a distributed run that have not the same model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.report import Severity
from bncli.rulebook.interface import Rule, examples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bncli.model.ranks import RankDifference
    from bncli.report import Finding

RANKS_DIFFER = Rule(
    "BN908",
    "models-of-ranks-differ",
    Severity.ERROR,
    "the ranks do not have the same parameters and buffers",
    "Load one checkpoint on all ranks with --checkpoint, or seed all ranks alike. If DDP trained "
    "the model with broadcast_buffers=False, save and load the state of one rank, or train with "
    "torch.nn.SyncBatchNorm.",
    symptom="The results of a distributed run change with the number of ranks, or evaluation gives "
    "another loss on each rank.",
    arithmetic="Before the model runs, the dtype, the shape and a CRC-32 of the bytes of every "
    "parameter and buffer are compared with rank 0's. Of BatchNorm layers, the largest absolute "
    "difference is given too. Where something differs, nothing is merged or saved, because the "
    "statistics would be those of several models.",
    certainty="Certain that the bytes differ. Three causes are common: a model without a "
    "checkpoint whose weights each rank draws for itself; DistributedDataParallel with "
    "broadcast_buffers=False, where weights are equal and every rank has running statistics of its "
    "own; and checkpoints of different steps.",
    lookalike="Ranks that see different data differ in what their layers take in, which is what a "
    "distributed run is for, and not in their parameters and buffers.",
)

HOW = {
    "values": "other values",
    "dtype": "another dtype",
    "shape": "another shape",
    "missing": "no such tensor, or one that rank 0 does not have,",
}


def rank_findings(found: Sequence[RankDifference]) -> list[Finding]:
    """A finding for each layer in which ranks differ from rank 0, in the model's order."""
    layers: dict[str, list[RankDifference]] = {}
    for each in found:
        layers.setdefault(each.layer, []).append(each)
    return [_finding(layer, tensors) for layer, tensors in layers.items()]


def _finding(layer: str, tensors: Sequence[RankDifference]) -> Finding:
    names = [each.name for each in tensors]
    ranks = sorted({rank for each in tensors for rank in each.ranks})
    apart = [each.apart for each in tensors if each.apart is not None]
    said = examples([str(rank) for rank in ranks], 8).replace("'", "")
    has = f"rank {said} has" if len(ranks) == 1 else f"ranks {said} have"
    how = next(iter(dict.fromkeys(HOW[each.what] for each in tensors)))
    far = f", up to {max(apart):.3g} apart" if apart else ""
    return RANKS_DIFFER.finding(
        layer,
        f"{has} {how} in {examples(names)} than rank 0{far}",
        {
            "tensors": names,
            "ranks": ranks,
            "differs_in": tensors[0].what,
            "max_abs_diff": max(apart) if apart else None,
        },
    )
