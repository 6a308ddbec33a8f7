"""One checkpoint, judged: its layers are read and dropped one by one, then seen as a whole."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import field, replace
from typing import TYPE_CHECKING

from bncli.commands.inspect_checkpoint.rows import Rows
from bncli.files.runs import Runs
from bncli.light import dataclass

if TYPE_CHECKING:
    from bncli.commands.inspect_checkpoint.layer_settings import LayerSettings
    from bncli.model import TensorFile
    from bncli.report import Finding
    from bncli.rulebook.layers import Layer
    from bncli.state_dict import LayerRefs

MOST_CHANNELS = 1 << 25
"""A layer of more is refused, which no network has: judging takes up to 120 bytes a channel at
its highest, for the rules see a layer whole (medians, the channel that drowns the others)."""


@dataclass(slots=True)
class Judged:
    """What was seen of the files so far; no array among it.

    `found` names all layers of the files, `rows` and `findings` are those that are shown, and
    `checked` has the names of these under each file's path. `names` has all that findings could
    name, shown or not. `shared` holds the rows, by path and name, of layers that stand under
    another name in a row above, and count once. `skipped` says of what belongs to no layer why it
    was not read, by name and file. `shards` counts the files of those models that lie in several.
    `members` counts the models in archives of several, each of which is judged by itself.
    `without` says of files without such a layer, by path, why that is so, where it shows.
    """

    rows: Rows = field(default_factory=Rows)
    findings: list[Finding] = field(default_factory=list)
    eps_sources: set[str] = field(default_factory=set)
    momentum_sources: set[str] = field(default_factory=set)
    classes: set[str | None] = field(default_factory=set)
    found: list[str] = field(default_factory=list)
    containers: list[str] = field(default_factory=list)
    checked: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[tuple[str, str], str] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    shards: int = 0
    members: int = 0
    shared: set[tuple[str, str]] = field(default_factory=set)
    tensors: int = 0
    without: dict[str, str] = field(default_factory=dict)

    def add(self, other: Judged) -> None:
        """Take in what was seen of another file."""
        self.rows.extend(other.rows)
        self.findings += other.findings
        self.eps_sources |= other.eps_sources
        self.momentum_sources |= other.momentum_sources
        self.classes |= other.classes
        self.found += other.found
        self.containers += other.containers
        for path, names in other.checked.items():
            self.checked.setdefault(path, []).extend(names)
        self.skipped |= other.skipped
        self.without |= other.without
        for path, names in other.names.items():
            self.names[path] = list(dict.fromkeys((*self.names.get(path, ()), *names)))
        self.shards += other.shards
        self.members += other.members
        self.shared |= other.shared
        self.tensors += other.tensors


def judge(
    file: TensorFile, prefix: str, globs: list[str], settings: LayerSettings, expected: int | None
) -> Judged:
    """Judge one file as a whole, and give what `prefix` and `globs` choose of it.

    Files with such layers in one archive are judged each by itself. `expected` is the number of
    layers that there should be, if that is known. Raises MissingTensorError where `prefix` means no
    layer, FileError where one is damaged, and TensorError where one is too large.
    """
    from bncli.rulebook.structure import unexpected_number
    from bncli.state_dict import announce, batch_norm_layers

    parts = file.apart()
    models = [(part, batch_norm_layers(part)) for part in parts]
    models = [(part, layers) for part, layers in models if layers]
    if len(models) < 2 and not (models and len(parts) == 1):
        models = [(file, batch_norm_layers(file))]
    every = [refs for _, layers in models for refs in layers]
    chosen = _chosen(file, every, prefix, globs)
    announce(every)
    path = str(file.path)
    seen = Judged(tensors=len(file.tensors), members=len(models) if len(models) > 1 else 0)
    shared = 0
    for part, layers in models:
        judged, again = _judge(part, layers, chosen, settings)
        seen.add(judged)
        shared += again
    seen.skipped = {(path, name): why for name, why in _skipped(file, every).items()}
    numbers = unexpected_number(len(every) - shared, len(every), expected)
    seen.findings += [replace(finding, path=path) for finding in numbers]
    return seen


def _judge(
    file: TensorFile,
    layers: list[LayerRefs],
    chosen: Callable[[str], bool],
    settings: LayerSettings,
) -> tuple[Judged, int]:
    """Judge one model, and give what is chosen of it, and how many layers are another one's."""
    from bncli.commands.inspect_checkpoint.layer_rows import layer_row
    from bncli.rulebook.checkpoint import checkpoint, file_findings, layer_findings
    from bncli.rulebook.layers import label
    from bncli.rulebook.lookalikes import check_lookalikes
    from bncli.rulebook.ordinary import measured
    from bncli.rulebook.summaries import summary

    path = str(file.path)
    seen = Judged(
        found=[refs.name for refs in layers],
        containers=[file.container],
        checked={path: [label(refs.name) for refs in layers if chosen(refs.name)]},
        without={} if layers or not file.without_layers else {path: file.without_layers},
    )
    parts = {str(ref.path) for ref in file.tensors.values()}
    seen.shards = len(parts) if len(parts) > 1 else 0
    summaries = []
    with ExitStack() as stack:
        runs = Runs((ref.storage for refs in layers for ref in refs.tensors.values()), stack)
        for refs in layers:
            layer = _read(refs, settings, runs)
            numbers = measured(layer)
            summaries.append(summary(layer, numbers))
            if chosen(refs.name):
                row = {"path": path, **layer_row(layer, refs, numbers)}
                seen.rows.append({**row, **settings.sources_of(refs)})
                seen.findings += layer_findings(layer, numbers)
                seen.eps_sources.add(settings.eps_of(refs)[1])
                seen.momentum_sources.add(settings.momentum_of(refs)[1])
                seen.classes.add(refs.module.class_name if refs.module is not None else None)
            del layer, numbers  # its arrays, before those of the next
    context = checkpoint(file, summaries)
    of_file = file_findings(context) if layers else check_lookalikes(context)
    about = [str(finding.evidence["layer"]) for finding in of_file if "layer" in finding.evidence]
    every = [label(name) for name in (*seen.found, *about)]
    seen.names[path] = list(dict.fromkeys(every))
    shown = [layer for layer in summaries if chosen(layer.name)]
    once = {layer.name for layer in context.distinct(shown)}
    seen.shared = {(path, label(layer.name)) for layer in shown if layer.name not in once}
    seen.findings += [finding for finding in of_file if _concerns(finding, chosen)]
    seen.findings = [replace(finding, path=path) for finding in seen.findings]
    return seen, len(context.shared)


def _skipped(file: TensorFile, layers: list[LayerRefs]) -> dict[str, str]:
    """What of the file was not read and belongs to no layer, with why; a layer's has a note."""
    noted = {id(ref) for refs in layers for ref in refs.tensors.values()}
    unreadable = {
        name: ref.unreadable
        for name, ref in file.tensors.items()
        if ref.unreadable and id(ref) not in noted
    }
    return {**file.skipped, **unreadable}


def _read(refs: LayerRefs, settings: LayerSettings, runs: Runs) -> Layer:
    """A layer with its arrays, and with eps and momentum from where they are known."""
    from bncli.errors import TensorError
    from bncli.rulebook.layers import Layer
    from bncli.state_dict import read_tensors

    for ref in refs.tensors.values():
        if ref.ndim == 1 and ref.numel > MOST_CHANNELS:
            raise TensorError(
                f"{ref.label}: it has {ref.numel} values, and a layer of more than "
                f"{MOST_CHANNELS} channels is not judged; save the file without it."
            )
    state, notes = read_tensors(refs, runs)
    eps, eps_source = settings.eps_of(refs)
    momentum, momentum_source = settings.momentum_of(refs)
    return Layer(
        state,
        shapes={leaf: ref.shape for leaf, ref in refs.tensors.items()},
        dtypes={leaf: ref.dtype for leaf, ref in refs.tensors.items()},
        eps=eps,
        momentum=momentum,
        eps_assumed=eps_source == "assumed",
        momentum_assumed=momentum_source == "assumed",
        unread=notes,
    )


def _chosen(
    file: TensorFile, layers: list[LayerRefs], prefix: str, globs: list[str]
) -> Callable[[str], bool]:
    """Whether a layer is shown: `CKPT::NAME` means one by any end of its name, or all below it.

    Raises MissingTensorError where `prefix` means none.
    """
    from bncli.gate.places import matches
    from bncli.loaders.names import find_name

    below = (f"{prefix}.", f"{prefix}/")
    whole = ""
    if prefix and not any(layer.name.startswith(below) for layer in layers):
        whole = find_name(file.path, [layer.name for layer in layers], prefix, "BatchNorm layer")

    def chosen(name: str) -> bool:
        if prefix and (name != whole if whole else not name.startswith(below)):
            return False
        return not globs or any(matches(name, glob) for glob in globs)

    return chosen


def _concerns(finding: Finding, chosen: Callable[[str], bool]) -> bool:
    """Whether a finding is about a layer that is shown, or about the file."""
    layer = finding.evidence.get("layer")
    return not isinstance(layer, str) or chosen(layer)
