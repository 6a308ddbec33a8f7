"""BN407 and BN408: a network that is mostly dead, and a layer whose input hardly varied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.light import np
from bncli.report import Certainty, Finding, Severity
from bncli.rulebook.interface import Rule, in_prose, span
from bncli.rulebook.layers import HALVES, Checkpoint, Layer, found, label, named

if TYPE_CHECKING:
    from bncli.model import FloatArray

NETWORK = Rule(
    "BN407",
    "network-collapsed",
    Severity.WARNING,
    "the network has collapsed, with many layers mostly dead",
    "Take an earlier checkpoint, and look for too high a learning rate, too much weight decay, or "
    "activations that died. If the network was pruned on purpose, remove the dead channels.",
    symptom="The output hardly depends on the input, or a few channels carry all of it.",
    arithmetic="A channel is dead if running_var is below a millionth of eps and |weight| below "
    "0.01, or if |weight| is below 1e-6. A channel whose weight and bias are both exactly 0 was "
    "masked on purpose, and does not count. More than half of the channels are dead in at least "
    "half of the layers (two or more), or in four layers in a row.",
    certainty="Likely that the network is worth little, though training with strong weight decay "
    "can leave a sparse network that works. The counts are certain.",
    lookalike="Some dead channels in a healthy network are BN402, and a single layer of them is "
    "BN404.",
    sure=Certainty.LIKELY,
)
AMPLIFIES = Rule(
    "BN408",
    "layer-amplifies",
    Severity.WARNING,
    "every running_var is close to 0 while the weights are not, so eps determines the scale",
    "Find out what keeps the layer's input constant, or whether running_var was never written.",
    symptom="Inputs like those seen in training give a constant, and any other input is multiplied "
    "by a hundred or more.",
    arithmetic="In every channel, running_var is below a millionth of eps or |weight| is below "
    "1e-6. In some of them, running_var is that small while |weight| is 0.01 or more: the scale "
    "there is |weight| / sqrt(eps).",
    certainty="Certain that, for the eps that was used, it alone determines these scales. The file "
    "does not show whether the input is constant or the variances are wrong.",
    lookalike="Variances close to 0 with weights near 0 are BN404, with means of exactly 0 they "
    "are BN208, and in single channels they are BN401. In half precision, a variance of exactly 0 "
    "is BN502.",
    formerly=("BN404",),
)

IN_A_ROW = 4
"""So many mostly dead layers in a row are a collapse in a network of any depth."""


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
            f"{gone} of {total} channels are dead, and {number} of {len(layers)} layers have lost "
            "more than half",
            {
                "cause": "collapsed",
                "dead": gone,
                "channels": total,
                "layers": [layer.name for layer, each in zip(layers, dead, strict=True) if each],
                "layers_total": len(layers),
                "in_a_row": longest,
            },
            detail=f"The worst layer is {in_prose(label(worst.name))}, with {worst.dead} of "
            f"{worst.channels} channels dead.",
        )
    ]


FILE_CHECKS = (check_network,)


def amplifies(layer: Layer, scale: FloatArray) -> list[Finding]:
    """BN408: every variance is close to 0, and weights are not; for a coherent layer."""
    assert layer.var is not None
    var = layer.var
    lost = layer.dtypes.get("running_var") in HALVES and var == 0
    live = layer.silent() & layer.live() & np.isfinite(scale) & ~np.asarray(lost)
    if not live.any() or not (layer.silent() | layer.weightless()).all():
        return []
    zero = not var[live].any()
    why = "The input was constant, or running_var was never written. " * zero
    rest = " The weights of the other channels are close to 0." * (not live.all())
    worst = int(np.argmax(np.where(live, np.abs(scale), -1)))
    return [
        found(
            AMPLIFIES,
            layer,
            f"running_var is {span(var[live])} in {named(live)}, so eps alone sets the scale",
            "constant-input-or-never-written" if zero else "input-hardly-varies",
            live,
            detail=f"{why}With {layer.eps_said} the scale is {span(np.abs(scale[live]))}, the "
            f"largest in channel {worst}.{rest}",
            running_var=var,
            scale=scale,
            eps=layer.eps,
        )
    ]
