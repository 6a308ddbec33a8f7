"""BN407 and BN408: a network of which most is dead, and a layer whose input was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import np
from bncli.report import Finding, Severity
from bncli.rulebook.interface import Rule, span
from bncli.rulebook.layers import HALVES, Checkpoint, Layer, found, named

if TYPE_CHECKING:
    from bncli.model import FloatArray

NETWORK = Rule(
    "BN407",
    "network-collapsed",
    Severity.WARNING,
    "Most channels of most layers are dead: the network has collapsed.",
    "Take an earlier checkpoint, and look for a learning rate that is too high, a weight decay "
    "that won, or activations that died; if the network was pruned so, remove the dead channels.",
    symptom="The output hardly depends on the input, or a few channels carry all of it.",
    arithmetic="A channel is dead if running_var is below a millionth of eps and |weight| below "
    "0.01, or if |weight| is below 1e-6; where weight and bias are both exactly 0 it was masked, "
    "and is not counted. More than half of the channels are dead in at least half of the layers, "
    "two or more, or in four layers in a row.",
    certainty="Certain as a count. That the network is worth little then is likely: training with "
    "strong decay can leave a sparse network that works.",
    lookalike="Some dead channels in a healthy network are BN402, and a single layer of them is "
    "BN404.",
)
AMPLIFIES = Rule(
    "BN408",
    "layer-amplifies",
    Severity.WARNING,
    "Every running variance of the layer is nothing beside eps, under weights that are live.",
    "Look for what holds the input of the layer constant, or for a running_var that was never "
    "written.",
    symptom="Inputs like those of training give a constant, and any others are multiplied by a "
    "hundred and more.",
    arithmetic="In every channel running_var is below a millionth of eps or |weight| below 1e-6, "
    "and in some the former under a |weight| of 0.01 or more: the scale is |weight| / sqrt(eps) "
    "there.",
    certainty="Certain that eps alone sets these scales. Whether the input is constant or the "
    "variances are wrong, the file does not say.",
    lookalike="Dead under dead weights is BN404; means of exactly 0 as well are BN208; single "
    "channels are BN401. In half precision a variance of exactly 0 is BN502.",
    formerly=("BN404",),
)

IN_A_ROW = 4
"""Layers in a row that are mostly dead, in a network of more than twice as many."""


def check_network(file: Checkpoint) -> list[Finding]:
    """BN407: how many layers have more dead channels than others."""
    layers = [layer for layer in file.own() if layer.has_statistics and layer.channels]
    dead = [2 * layer.dead > (layer.channels or 0) for layer in layers]
    longest = run = 0
    for each in dead:
        run = run + 1 if each else 0
        longest = max(longest, run)
    number = sum(dead)
    if not (number >= 2 and 2 * number >= len(layers)) and longest < IN_A_ROW:
        return []
    worst = max(layers, key=lambda layer: layer.dead / (layer.channels or 1))
    total = sum(layer.channels or 0 for layer in layers)
    gone = sum(layer.dead for layer in layers)
    return [
        NETWORK.finding(
            "layers",
            f"{gone} of {total} channels are dead, and more than half of them in {number} of "
            f"{len(layers)} layers; {worst.dead} of {worst.channels} in {worst.name}.",
            {
                "cause": "collapsed",
                "dead": gone,
                "channels": total,
                "layers": [layer.name for layer, each in zip(layers, dead, strict=True) if each],
                "layers_total": len(layers),
                "in_a_row": longest,
            },
        )
    ]


FILE_CHECKS = (check_network,)


def amplifies(layer: Layer, scale: FloatArray) -> list[Finding]:
    """BN408: no channel with a variance to speak of, and live weights; of a coherent layer."""
    assert layer.var is not None
    var = layer.var
    lost = layer.dtypes.get("running_var") in HALVES and var == 0
    live = layer.silent() & layer.live() & np.isfinite(scale) & ~np.asarray(lost)
    if not live.any() or not (layer.silent() | layer.weightless()).all():
        return []
    zero = not var[live].any()
    why = ": the input was constant, or running_var was never written" * zero
    worst = int(np.argmax(np.where(live, np.abs(scale), -1)))
    return [
        found(
            AMPLIFIES,
            layer,
            f"running_var is {span(var[live])} in {named(live)}"
            + (", and the other weights are dead" if not live.all() else "")
            + f"; with {layer.eps_said} the scale is {span(np.abs(scale[live]))}, the largest in "
            f"channel {worst}{why}.",
            "constant-input-or-never-written" if zero else "input-hardly-varies",
            live,
            running_var=var,
            scale=scale,
            eps=layer.eps,
        )
    ]
