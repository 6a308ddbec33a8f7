"""`bncli.capture(model)`: in Python, what `bncli capture` and `bncli diagnose` do in a terminal."""

from __future__ import annotations

from functools import wraps
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

from bncli.api.arguments import NOT_GIVEN, refuse_unknown, signature_of
from bncli.api.documentation import docstring_of
from bncli.errors import UsageError
from bncli.live.recording import Recording, Seen
from bncli.model.capture import Capture, Propagation

if TYPE_CHECKING:
    from bncli.api.report import Report
    from bncli.arguments.model import ModelFlags
    from bncli.report import Report as Plain

CLOSING = (
    "Returns what was seen, with `save` and `diagnose`, and with data the `report` too; "
    "bncli.diagnose and bncli.recalibrate take it in the place of a statistics file. Raises "
    "bncli.BncliError for what is no model, and for a pattern that fits no layer."
)

WATCHING = ("frozen", "per_batch")
"""The arguments for a model that runs in the user's own loop."""


def capture(model: Any, **given: Any) -> Recorded | Captured:
    """Take in what the BatchNorm layers of a model see while it runs inside a `with` block.

        with bncli.capture(model.train()) as stats:
            for batch in loader:
                model(batch)
        stats.save("stats.npz")
        print(stats.diagnose())

    Nothing in the model is changed, and training goes on as without it. Each pass counts as
    training or as evaluation by the mode of the layers, and a diagnosis judges those in training;
    of a model whose weights an optimiser moves meanwhile, it judges the input alone. `frozen` has
    patterns of layers that keep their statistics in training too, such as "backbone.*", and
    `per_batch` keeps the mean and variance of every batch.

    With `data`, such as a DataLoader, it runs the model itself, in training and in evaluation mode,
    and returns the statistics:

        stats = bncli.capture(model, data=loader)
    """
    refuse_unknown("capture", given)
    if given.get("data") is not None:
        return _run(model, given)
    for argument, value in given.items():
        if value not in (None, False, NOT_GIVEN) and argument not in WATCHING:
            raise UsageError(
                f"capture: {argument} is for a run over data, which is missing: add data=... ."
            )
    frozen = given.get("frozen") or ()
    return Recorded(
        model,
        frozen=(frozen,) if isinstance(frozen, str) else frozen,
        per_batch=bool(given.get("per_batch")),
    )


capture.__doc__ = docstring_of(
    "capture",
    body=cleandoc(capture.__doc__ or ""),
    closing=CLOSING,
    unsaid="; requires --save-stats",
)
capture.__signature__ = signature_of("capture")  # type: ignore[attr-defined]  # as help() shows it


def _run(model: Any, given: dict[str, Any]) -> Captured:
    """What the layers saw in a run over the data; raises BncliError as `bncli capture`."""
    from bncli.api.calls import made
    from bncli.commands import command
    from bncli.commands.capture.command import captured

    seen: list[Capture | None] = []

    @wraps(command("capture"))
    def keeping(model: str, *, per_batch: bool, save_stats: str | None, **groups: Any) -> Plain:
        kept, report = captured(
            model, groups["flags"], save_stats, groups["scale"], per_batch=per_batch
        )
        seen.append(kept)
        return report

    report = made("capture", {**given, "model": model}, keeping)
    return Captured(seen[0] or Capture(()), report)


class Diagnosed(Seen):
    """What the layers of a model saw, to be saved and diagnosed."""

    def diagnose(self, **given: Any) -> Report:
        """Why the model is good in training and bad in evaluation; `print` shows it.

        Layers are judged by what they saw in training. Repairs are not tried, since the batches are
        not kept. It takes the arguments of bncli.diagnose that do not need the model:
        `train_batch_size`, `reference`, `chart`, `fail_on`, `select`, `ignore`, `baseline` and
        `update_baseline`. Raises UsageError for the others and where the model ran only in eval
        mode, and ModelError where a layer's input could not be taken in.
        """
        from bncli.api.calls import made
        from bncli.commands import command
        from bncli.commands.diagnose.command import report_of
        from bncli.commands.diagnose.source import Run, TrialFlags, reference_of

        refuse_unknown("diagnose", given)
        if "given" in given:
            raise TypeError("diagnose() got an unexpected keyword argument 'given'")
        seen = self.capture
        trained = any(Propagation.TRAINING in layer.seen for layer in seen.norms)
        if seen.norms and not trained and not seen.refused_training:
            raise UsageError(
                "stats.diagnose: the model ran only in eval mode. Layers are judged by what they "
                "see in train mode: inside the block, run a few batches after model.train() as "
                "well."
            )

        @wraps(command("diagnose"))
        def diagnosed(given: list[str], *, model: ModelFlags, **flags: Any) -> Plain:
            del given
            what = "what bncli.capture gives"
            tried = TrialFlags(flags["metric"], flags["most_tried"], flags["train_batch_size"])
            model.refuse_any(what)
            tried.refuse_any(what)
            path = flags["reference"]
            known = reference_of(path, seen) if path is not None and seen.norms else None
            names = (*(layer.name for layer in seen.norms), *seen.uncalled)
            done = Run(seen, None, str(seen.source.get("class", "the model")), names, "", ())
            return report_of(done, flags["train_batch_size"], known, drawn=flags["chart"])

        return made("diagnose", {**given, "given": (self,)}, diagnosed)


class Recorded(Diagnosed, Recording):
    """What the layers of a model saw while the user's own code ran it."""


class Captured(Diagnosed):
    """What the layers of a model saw in a run over data, and the `report` of it."""

    def __init__(self, seen: Capture, report: Report) -> None:
        self._seen = seen
        self.report = report

    @property
    def capture(self) -> Capture:
        """What was seen."""
        return self._seen

    def __repr__(self) -> str:
        """The model's class, and how much was seen."""
        kind = str(self._seen.source.get("class", "no layer")).rpartition(".")[2]
        return f"<bncli.capture of {kind}: {len(self._seen.norms)} BatchNorm layers>"
