"""The rules for checkpoints, run: each layer as it is read, then the file as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.dtypes import DTYPES
from bncli.errors import TensorError
from bncli.rulebook import (
    averaging,
    channels,
    collapse,
    copies,
    corruption,
    counters,
    estimation,
    exported,
    lookalikes,
    momentum,
    precision,
    shapes,
    structure,
    unwritten,
    variances,
)
from bncli.rulebook.layers import Bare, Checkpoint, Layer
from bncli.rulebook.pairs import Comparison
from bncli.rulebook.summaries import Summary

if TYPE_CHECKING:
    from bncli.model import TensorFile
    from bncli.report import Finding
    from bncli.rulebook.ordinary import Measured

    LayerChecks = tuple[Callable[[Layer], list[Finding]], ...]

MODULES = (
    unwritten,
    corruption,
    variances,
    shapes,
    channels,
    estimation,
    momentum,
    counters,
    collapse,
    precision,
    structure,
    averaging,
    exported,
    lookalikes,
)
"""The modules whose rules are about checkpoints, in the order of a layer's findings."""

LAYER_CHECKS: LayerChecks = tuple(
    check for module in MODULES for check in getattr(module, "LAYER_CHECKS", ())
)
"""Checks of one layer by its arrays."""

FILE_CHECKS: tuple[Callable[[Checkpoint], list[Finding]], ...] = tuple(
    check for module in MODULES for check in getattr(module, "FILE_CHECKS", ())
)
"""Checks of all layers of a file together."""


def layer_findings(layer: Layer, numbers: Measured | None = None) -> list[Finding]:
    """What one layer's own numbers show, which were perhaps `measured` before.

    If training cannot have left the statistics, only that is reported of them, and what else is
    damaged.
    """
    if numbers is not None and numbers.ordinary:
        return []
    if not (layer.eps_assumed or 0 <= layer.eps < math.inf):  # no scale is right with it
        checks = (variances.check_arguments, *shapes.LAYER_CHECKS, *corruption.LAYER_CHECKS)
        return [finding for check in checks for finding in check(layer)]
    # These come first: what other checks would find is then the consequence of this one cause.
    by_cause = unwritten.LAYER_CHECKS
    for unwritten_check in by_cause:
        if found := unwritten_check(layer):
            rest: LayerChecks = shapes.LAYER_CHECKS
            if unwritten_check is not unwritten.check_garbage:  # which names all such values
                rest += corruption.LAYER_CHECKS
            if unwritten_check is not unwritten.check_zero:  # which an older rule reported
                silent = [each for each in LAYER_CHECKS if each not in (*by_cause, *rest)]
                codes = {finding.code for check in silent for finding in check(layer)}
                found = [replace(finding, instead_of=tuple(sorted(codes))) for finding in found]
            return found + [finding for check in rest for finding in check(layer)]
    return [finding for check in LAYER_CHECKS for finding in check(layer)]


def file_findings(file: Checkpoint) -> list[Finding]:
    """What the layers of a file show together."""
    return [finding for check in FILE_CHECKS for finding in check(file)]


def checkpoint(file: TensorFile, layers: Sequence[Summary]) -> Checkpoint:
    """A file with its layers' summaries."""
    from bncli.state_dict import possible_layers

    names = {layer.name for layer in layers}
    # A graph says of every operator what it is, so that no name has to.
    has_graph = any(stored.front is not None for stored in file.layers.values())
    by_name = not (has_graph or file.without_layers)
    averaged = dict(_averaged(file))
    possible = possible_layers(file)
    compared = Comparison(file, possible)
    twins = copies.twins(layers, averaged, compared.alike)
    certain = copies.twins(layers, averaged) if twins else {}
    bare = [
        Bare(layer.name, tuple(layer.tensors))
        for layer in possible.values()
        if by_name
        and layer.name not in names
        and layer.module is None
        and not layer.has_statistics
        and all(ref.ndim <= 1 for ref in layer.tensors.values())
    ]
    return Checkpoint(
        layers=layers,
        bare=bare,
        twins=twins,
        pairs=compared.pairs(twins, layers),
        followers=[name for name in twins if name not in certain],
        shared=structure.shared_layers([refs for name, refs in possible.items() if name in names]),
        averaged=averaged,
        runs_as_stored=file.container.startswith(exported.PROGRAMS),
        likely=lookalikes.likely_layers(file, possible, names) if by_name else (),
        parameter_dtypes=frozenset(
            ref.dtype
            for name, ref in file.tensors.items()
            if ref.dtype in DTYPES
            and DTYPES[ref.dtype].kind == "float"
            and ref.numel > 1
            and copies.is_parameter(name)
        ),
    )


def _averaged(file: TensorFile) -> Iterable[tuple[str, float]]:
    """The n_averaged tensors of a file, by the name in front of them."""
    for name, ref in file.tensors.items():
        if name.rpartition(".")[2] == "n_averaged" and ref.numel == 1:
            try:
                yield name.rpartition(".")[0], float(ref.read().reshape(()).item())
            except (TensorError, TypeError):  # TypeError: a complex number
                continue
