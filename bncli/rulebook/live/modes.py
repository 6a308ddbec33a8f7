"""BN801 to BN804: layers and modules in the wrong mode, and values that are not finite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.model.capture import InputSums, Propagation
from bncli.report import Finding, Severity
from bncli.rulebook.interface import Rule, examples
from bncli.rulebook.layers import label
from bncli.rulebook.live.evidence import THE_INPUT, Evidence, at_layers, named_layers

if TYPE_CHECKING:
    from bncli.model.capture import WatchedLayer

IN_TRAINING = Rule(
    "BN801",
    "left-in-training-mode",
    Severity.WARNING,
    "a BatchNorm layer is in training mode after model.eval()",
    "Find the train() method or the hook that keeps the layer in training mode, and call "
    "model.eval() after it. Until then its output depends on the batch, and every evaluation "
    "changes its statistics.",
    symptom="Evaluation depends on the batch size and on the order of the samples, and gets worse "
    "or better each time it runs.",
    arithmetic="training is True on the module after model.eval() was called on the model, or on a "
    "model that is used as it is. The layer then normalises with its batch, and moves "
    "running_mean and running_var towards it.",
    certainty="Certain: the flag was read from the module.",
    lookalike="A layer without running statistics also normalises with its batch, in any mode; "
    "that is BN802.",
    seen=("roytseng-tw/Detectron.pytorch#104", "pytorch/pytorch#20875"),
)
NO_STATISTICS = Rule(
    "BN802",
    "no-stored-statistics",
    Severity.WARNING,
    "a layer without running statistics normalises with its batch in evaluation too",
    "Use track_running_stats=True and train again, or run training batches through such a layer "
    "with momentum=None to give it statistics. Otherwise evaluate in batches like those of "
    "training.",
    symptom="A single image gets another result than the same image in a batch, and a batch of one "
    "class is classified badly.",
    arithmetic="running_mean and running_var are None, as with track_running_stats=False. "
    "PyTorch then takes the batch's statistics in every mode.",
    certainty="Certain: the module has no buffers.",
    lookalike="InstanceNorm has none by default, and needs none.",
    seen=("pytorch/pytorch#156051", "tristandeleu/pytorch-maml#7"),
)
STILL_TRAINING = Rule(
    "BN803",
    "module-still-training",
    Severity.WARNING,
    "a module other than BatchNorm is in training mode after model.eval()",
    "Find the train() method or the hook that keeps the module in training mode, and call "
    "model.eval() after it.",
    symptom="Two evaluations of the same data differ, or evaluation is worse than it should be.",
    arithmetic="training is True on the module after model.eval() was called on the model. Dropout "
    "that stays on drops values at random.",
    certainty="Certain: the flag was read from the module. Whether it matters depends on the "
    "module.",
    lookalike="Dropout may be left on by intention, as for Monte Carlo estimates.",
)
NOT_FINITE = Rule(
    "BN804",
    "not-finite-in-network",
    Severity.ERROR,
    "NaN or Inf reached a layer",
    "Look for what first makes NaN or Inf: the data themselves, a division, a logarithm, or "
    "an overflow in half precision. Every number that is computed from them is lost.",
    symptom="The output is NaN, in training, evaluation or both.",
    arithmetic="The values of the layer's input that are NaN, Inf or -Inf were counted. Of all "
    "layers that saw any, this one comes first in the order of execution.",
    certainty="Certain: the values were counted.",
    lookalike="A running_var that is negative or NaN makes NaN in evaluation alone, behind the "
    "layer; that is BN201 to BN204.",
)


def check_mode(found: Evidence) -> list[Finding]:
    """BN801: layers in training mode."""
    names = named_layers(
        layer for layer in found.capture.norms if layer.in_training and _has_buffers(layer)
    )
    if not names:
        return []
    total = len(found.capture.norms)
    many = f"{len(names)} of {total} layers are" if len(names) > 1 else "the layer is"
    return [at_layers(IN_TRAINING, names, f"{many} in training mode after model.eval()")]


def check_buffers(found: Evidence) -> list[Finding]:
    """BN802: layers that have no running statistics."""
    names = named_layers(
        layer for layer in found.capture.norms if not _has_buffers(layer) and not layer.per_sample
    )
    if not names:
        return []
    total = len(found.capture.norms)
    many = f"{len(names)} of {total} layers have" if len(names) > 1 else "the layer has"
    said = f"{many} no running statistics, so evaluation depends on the batch"
    return [at_layers(NO_STATISTICS, names, said)]


def check_others(found: Evidence) -> list[Finding]:
    """BN803: other modules in training mode."""
    names = found.capture.still_training
    if not names:
        return []
    many = f"{len(names)} modules are" if len(names) > 1 else "the module is"
    dropping = [name for name in names if name in found.capture.dropout]
    detail = f"Dropout stays on in {examples(dropping)}." if dropping else ""
    said = f"{many} in training mode after model.eval()"
    return [at_layers(STILL_TRAINING, names, said, detail=detail)]


def check_finite(found: Evidence) -> list[Finding]:
    """BN804: the first layer that saw NaN or Inf."""
    for propagation in (Propagation.TRAINING, Propagation.EVAL):
        for layer in found.capture.layers:
            seen = layer.seen.get(propagation)
            if seen is not None and (said := _not_finite(seen)):
                return [_first_one(found, layer, propagation, seen, said)]
    return []


def _first_one(
    found: Evidence, layer: WatchedLayer, propagation: Propagation, seen: InputSums, said: str
) -> Finding:
    """BN804 at a layer."""
    total = seen.values * seen.num_features
    detail = ""
    if layer.state is None:
        detail = "The data themselves hold them."
    elif found.capture.input is not None:
        before = found.capture.layers[found.capture.layers.index(layer) - 1]
        what = "The model's input" if before.state is None else f"Layer {label(before.name)}"
        detail = f"{what} before it saw none."
    if propagation is Propagation.EVAL:
        detail += " In training mode all values are finite."
    return at_layers(
        NOT_FINITE,
        [THE_INPUT if layer.state is None else layer.name],
        f"{'it holds' if layer.state is None else 'its input holds'} {said} among {total} values",
        {
            "propagation": propagation.value,
            "nan": int(seen.nan.sum()),
            "inf": int(seen.posinf.sum() + seen.neginf.sum()),
        },
        detail=detail.strip(),
    )


def _not_finite(seen: InputSums) -> str:
    """How many values are not finite: "3 NaN", "3 NaN and 1 Inf"; "" for none."""
    counts = (("NaN", seen.nan.sum()), ("Inf", seen.posinf.sum()), ("-Inf", seen.neginf.sum()))
    said = [f"{int(count)} {what}" for what, count in counts if count]
    return examples(said) if said else ""


def _has_buffers(layer: WatchedLayer) -> bool:
    state = layer.state
    return state is not None and state.running_mean is not None and state.running_var is not None


CHECKS = (check_mode, check_buffers, check_others, check_finite)
