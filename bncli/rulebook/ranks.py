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

HOW = {"values": "other values", "dtype": "another dtype", "shape": "another shape"}


def rank_findings(found: Sequence[RankDifference]) -> list[Finding]:
    """A finding for each layer in which ranks differ from rank 0, in the model's order."""
    layers: dict[str, list[RankDifference]] = {}
    for each in found:
        layers.setdefault(each.layer, []).append(each)
    return [_finding(layer, tensors) for layer, tensors in layers.items()]


def _finding(layer: str, found: Sequence[RankDifference]) -> Finding:
    alike: dict[tuple[str, tuple[int, ...]], list[RankDifference]] = {}
    for each in found:
        alike.setdefault((each.what, each.ranks), []).append(each)
    apart = [each.apart for each in found if each.apart is not None]
    return RANKS_DIFFER.finding(
        layer,
        "; ".join(_clause(*key, group) for key, group in alike.items()),
        {
            "tensors": list(dict.fromkeys(each.name for each in found)),
            "ranks": sorted({rank for each in found for rank in each.ranks}),
            "differs_in": [
                [what, [each.name for each in group], list(ranks)]
                for (what, ranks), group in alike.items()
            ],
            "max_abs_diff": max(apart) if apart else None,
        },
    )


def _clause(what: str, ranks: tuple[int, ...], tensors: Sequence[RankDifference]) -> str:
    """What these ranks have in another way than rank 0, in the same tensors."""
    said = examples([str(rank) for rank in ranks], 8).replace("'", "")
    has = f"rank {said} has" if len(ranks) == 1 else f"ranks {said} have"
    names = examples([each.name for each in tensors])
    if what == "missing":
        return f"{has} no {names}, which rank 0 has"
    if what == "added":
        return f"{has} {names}, which rank 0 does not have"
    apart = max((each.apart for each in tensors if each.apart is not None), default=0)
    far = f", up to {apart:.3g} apart" if apart else ""
    return f"{has} {HOW[what]} in {names} than rank 0{far}"
