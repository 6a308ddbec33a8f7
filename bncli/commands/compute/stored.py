"""Statistics files in the place of tensors: what one layer saw, from one file or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.arguments.input import Input
from bncli.dtypes import COMPUTE_DTYPES
from bncli.errors import TensorError, UsageError
from bncli.light import dataclass, np
from bncli.loaders import open_file, split_spec
from bncli.loaders.interface import is_statistics_file, look
from bncli.model import ChannelStats, TensorRef
from bncli.model.capture import Propagation
from bncli.sections.answer import counted

if TYPE_CHECKING:
    from bncli.arguments.flags import AgainstFlags, InputFlags, LayerFlags
    from bncli.arguments.layer import Layer
    from bncli.commands.compute.saved import Saving
    from bncli.model.capture import Capture, InputSums, WatchedLayer
    from bncli.report import Value
    from bncli.sections.judged_pass import JudgedPass
    from bncli.sections.tables import Spread

KINDS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d")


def stored_or_none(
    specs: Sequence[str],
    reading: InputFlags,
    comparison: AgainstFlags,
    saving: Saving,
    *,
    training: bool,
) -> Stored | None:
    """What `open_stored` gives for statistics files; None where INPUT names tensors.

    Raises UsageError where only some are statistics files, and for flags that need values.
    """
    look(split_spec(spec)[0] for spec in specs)
    which = [is_statistics_file(split_spec(spec)[0]) for spec in specs]
    if not any(which):
        return None
    spec = specs[which.index(True)]
    if not all(which):
        other = specs[which.index(False)]
        if other != "-":
            open_file(split_spec(other)[0])  # what is wrong with it is said first
        raise UsageError(f"{spec} is a statistics file and {other} is not; give one kind of INPUT.")
    for flag, given in (
        ("--values", reading.values is not None),
        ("--channel-axis", reading.channel_axis not in (None, 1)),
        ("--dtype", reading.dtype is not None),
        ("--against", comparison.against is not None),
        ("--save-output", saving.output is not None),
        ("--per-batch", saving.per_batch),
    ):
        if given:
            raise UsageError(f"{flag} needs values, but {spec} holds their statistics.")
    return open_stored(specs, training=training)


@dataclass(frozen=True, slots=True)
class Stored:
    """What one layer saw in one propagation: `sums` of all files, and `parts`, each file's own.

    `given` is an input that stands for the values: it has their number and the channels, and the
    names of the files, in their order, which changes nothing. `kept` says that a file holds it
    already, and `new` that it goes into a file that is not there yet. `own_runs` says that the
    files are of runs of their own, and no shards of one.
    """

    capture: Capture
    layer: WatchedLayer
    propagation: Propagation
    sums: InputSums
    parts: tuple[InputSums, ...]
    given: Input
    kept: bool = False
    new: bool = False
    own_runs: bool = False

    def flags(self, flags: LayerFlags) -> LayerFlags:
        """The flags, with the layer's own state from the files where no other is asked for."""
        state = self.layer.state
        if flags.state is not None or state is None:
            return flags
        tracked = state.running_mean is not None or flags.running_mean is not None
        return replace(
            flags,
            state=f"{self.given.tensors[0].path}::{self.layer.name}",
            track_running_stats=flags.track_running_stats and tracked,
        )

    def judged(self, layer: Layer) -> JudgedPass:
        """The pass of `layer` over the values, as far as their statistics tell."""
        from bncli.sections.findings import pass_findings
        from bncli.sections.judged_pass import JudgedPass, sample_findings
        from bncli.verify.batch_norm_pass import batch_norm_pass

        stats = channel_stats(self.sums)
        parts = [channel_stats(part) for part in self.parts]
        done = batch_norm_pass(layer, stats, dtype=self.given.dtype, channel_axis=1)
        apart = self._apart(parts, stats)
        findings = pass_findings(stats, layer, done.norm)
        findings += sample_findings(stats, parts, layer, apart)
        return JudgedPass(done, parts, apart, findings)

    def _apart(self, parts: list[ChannelStats], whole: ChannelStats) -> Spread | None:
        """How far the batches lie from each other, or the files, where only these are unlike."""
        from bncli.sections.tables import spread_of_batches

        found = []
        # Batches are of one kind unless they are the calls of one forward pass, or its samples.
        if self.sums.batches > 1 and self.layer.calls == 1 and not self.layer.per_sample:
            found.append(spread_of_batches(self.sums))
        if len(parts) > 1 and (self.own_runs or not found):
            found.append(self._spread(parts, whole))
        for each in found:
            by_sample = each.by_sample
            if (
                by_sample is not None
                and by_sample.beyond_chance(each.between, whole.var, whole.mean).any()
            ):
                return each
        return found[0] if found else None

    def _spread(self, parts: list[ChannelStats], whole: ChannelStats) -> Spread:
        """How far the files lie from each other, judged by their samples."""
        from bncli.running_stats.scatter import FRatio
        from bncli.sections.tables import spread

        found = spread(parts, whole)
        with np.errstate(invalid="ignore", over="ignore"):
            means = [(part.shift - whole.shift) + (part.offset - whole.offset) for part in parts]
            # About their batch's mean, and that about their file's.
            squares = sum(
                each.sample_squares + each.between * (each.samples / each.values)
                for each in self.parts
            )
        number = np.array([float(each.samples) for each in self.parts])
        least = found.within * (number.sum() / whole.count)
        by_sample = FRatio.of(np.array(means), number, np.asarray(squares), least)
        return replace(found, by_sample=by_sample)

    @property
    def facts(self) -> dict[str, Value]:
        """What a report says beside, or instead of, what it says of tensors."""
        return {
            "shape": None,
            "dtype": _said(self.capture, "dtype"),
            "kind": self.kind,
            "layer": self.layer.name,
            "propagation": self.propagation.value,
            "samples": self.sums.samples,
            "batches": self.sums.batches,
        }

    @property
    def kind(self) -> str | None:
        """The module that takes such an input, if that is known."""
        module = self.layer.state.module if self.layer.state is not None else None
        names = (_said(self.capture, "kind"), module.class_name if module is not None else None)
        return next((name for name in names if name in KINDS), None)

    def subject(self, layer: Layer) -> str:
        """What is looked at, in a line."""
        from bncli.arguments.layer_report import assumed, name_of

        sums = self.sums
        mode = "in training" if layer.settings.training else "in evaluation"
        return (
            f"{name_of(self.given)}  {counted(sums.num_features, 'channel')}, "
            f"{counted(sums.samples, 'sample')} in {counted(sums.batches, 'batch', 'batches')}  "
            f"{self.kind or 'BatchNorm'} {mode}, {assumed(layer)}"
        )


def open_stored(specs: Sequence[str], *, training: bool) -> Stored:
    """The layer that the specs name, in the propagation of this mode.

    Raises UsageError for specs that name several layers or a file twice, FileError, and TensorError
    for a layer that nothing reached.
    """
    from bncli.loaders.statistics import find_layer, merge_captures, open_statistics

    pairs = [split_spec(spec) for spec in specs]
    paths = sorted({path for path, _ in pairs})
    if len(paths) < len(pairs):
        twice = next(path for path in paths if [path for path, _ in pairs].count(path) > 1)
        raise UsageError(f"{twice} is given twice, but its batches can count only once.")
    captures = [open_statistics(path) for path in paths]
    wanted = sorted({name for _, name in pairs if name}) or [""]
    whole = merge_captures(paths, captures)
    layers = [find_layer(paths[0], whole, name) for name in wanted]
    if len({layer.name for layer in layers}) > 1:
        raise UsageError(f"{specs[0]} and the other INPUTs name several layers; give one name.")
    return stored_of(whole, layers[0], paths, captures, training=training)


def stored_of(
    capture: Capture,
    layer: WatchedLayer,
    paths: Sequence[Path],
    captures: Sequence[Capture],
    *,
    training: bool,
) -> Stored:
    """A layer of a capture, which others, called by these paths, come to.

    Raises TensorError for a layer that nothing reached.
    """
    propagation = _propagation(layer, training=training)
    if propagation is None:
        raise TensorError(f"{paths[0]}::{layer.name}: nothing reached this layer.")
    number = capture.layers.index(layer)
    seen = [
        (path, sums)
        for path, each in zip(paths, captures, strict=True)
        if (sums := each.layers[number].seen.get(propagation)) is not None
    ]
    dtype = _dtype(capture, layer)
    shown = layer.name if len(capture.layers) > 1 else ""
    tensors = tuple(_stand_in(shown, path, sums, dtype) for path, sums in seen)
    parts = tuple(sums for _, sums in seen)
    given = Input(tensors, 1, dtype, None)
    own_runs = all(each.shard[1] == 1 for each in captures)
    sums = layer.seen[propagation]
    return Stored(capture, layer, propagation, sums, parts, given, own_runs=own_runs)


def channel_stats(sums: InputSums) -> ChannelStats:
    """The statistics that sums come to; where the first NaN or Inf was, they do not tell."""
    return ChannelStats(
        count=sums.values,
        shift=sums.shift,
        offset=sums.offset,
        var=sums.var,
        min=sums.min,
        max=sums.max,
        nan=sums.nan,
        posinf=sums.posinf,
        neginf=sums.neginf,
        first_nonfinite=(None,) * sums.num_features,
    )


def _propagation(layer: WatchedLayer, *, training: bool) -> Propagation | None:
    """The one that the mode calls for, where the layer was seen in it; else the first it was."""
    wanted = Propagation.TRAINING if training else Propagation.EVAL
    reached = [each for each in (wanted, *Propagation) if each in layer.seen]
    return next((each for each in reached if layer.seen[each].values), None)


def _stand_in(name: str, path: Path, sums: InputSums, dtype: str) -> TensorRef:
    """A tensor without values that stands for those of one file."""
    shape = (sums.values, sums.num_features)
    why = "only their statistics are kept"
    return TensorRef(name, path, shape, dtype, (shape[1], 1), None, why)


def _dtype(capture: Capture, layer: WatchedLayer) -> str:
    """The dtype of the values; where it is not known, that of a layer of float64, or float32."""
    said = _said(capture, "dtype")
    if said in COMPUTE_DTYPES:
        return str(said)
    return "float64" if layer.state is not None and layer.state.dtype == "float64" else "float32"


def _said(capture: Capture, key: str) -> str | None:
    """What the files say of where they are from; None where they disagree, or do not."""
    value = capture.source.get(key)
    return value if isinstance(value, str) else None
