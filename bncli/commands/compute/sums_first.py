"""A part of a larger run: the sums of its own inputs first, and the report from them.

So the report of a shard is that of the part which it writes, whoever reads it, and each input is
read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.arguments.distributed import check_distributed
from bncli.arguments.input import VALUES
from bncli.arguments.shard import Shard, no_inputs, parse_shard
from bncli.errors import CorruptFileError, FileError, UsageError
from bncli.files.reading import check_still, current
from bncli.files.save import THERE, check_new
from bncli.light import dataclass
from bncli.loaders import split_spec
from bncli.loaders.interface import STANDARD_INPUT, is_statistics_file, look
from bncli.loaders.parts import held_inputs, made_part
from bncli.loaders.patterns import natural
from bncli.model.part import Part

if TYPE_CHECKING:
    from bncli.arguments.flags import AgainstFlags, InputFlags, LayerFlags
    from bncli.arguments.input import Input
    from bncli.arguments.shard import ScaleFlags
    from bncli.commands.compute.saved import Saving
    from bncli.commands.compute.stored import Stored
    from bncli.model.capture import Capture


def record_of(given: Input, reading: InputFlags, layer: LayerFlags, saving: Saving) -> Part:
    """The record of a whole run over these inputs; an empty one where they are not all files."""
    labels = [str(tensor.path) + f"::{tensor.name}" * bool(tensor.name) for tensor in given.tensors]
    if not {VALUES, STANDARD_INPUT}.isdisjoint(tensor.path for tensor in given.tensors):
        return Part()
    return Task.of(labels, Shard(), reading, layer, saving).part()


@dataclass(frozen=True, slots=True)
class Task:
    """What one task of a larger run has to do: its inputs, and the record that they get.

    `inputs` are its own, `every` those of all tasks. `target` is where its part will be, if one
    is to be written.
    """

    shard: Shard
    every: tuple[str, ...]
    inputs: tuple[str, ...]
    flags: dict[str, object]
    target: str | None

    @classmethod
    def of(
        cls,
        specs: Sequence[str],
        shard: Shard,
        reading: InputFlags,
        layer: LayerFlags,
        saving: Saving,
    ) -> Task:
        """The task of this shard of the inputs, which are sorted: 10.npy comes behind 9.npy."""
        every = tuple(sorted(specs, key=natural))
        flags: dict[str, object] = {
            "--channel-axis": reading.channel_axis,
            "--dtype": reading.dtype.value if reading.dtype else None,
            "--state": layer.state,
            "--per-batch": True if saving.per_batch else None,
        }
        return cls(shard, every, tuple(shard.of(every)), flags, saving.stats)

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the inputs."""
        return tuple(str(split_spec(spec)[0]) for spec in self.inputs)

    def part(self) -> Part:
        """The record of this task's part. Raises FileError for an input that cannot be read."""
        shard = self.shard.k, self.shard.n
        return made_part(shard, self.every, self.inputs, self.flags)

    @property
    def per_batch(self) -> bool:
        """Whether the statistics of each batch are kept."""
        return self.flags["--per-batch"] is not None

    @property
    def nothing(self) -> str:
        """Why there is nothing to do, "" where there is something."""
        return "" if self.inputs else no_inputs(self.shard, self.every)


def task_of(
    specs: Sequence[str],
    scale: ScaleFlags,
    reading: InputFlags,
    layer: LayerFlags,
    comparison: AgainstFlags,
    saving: Saving,
) -> Task:
    """The task that the flags ask for.

    Raises UsageError for flags that need all of the values, for what ranks cannot share, and
    FileError for a target that is there already and is not to be used.
    """
    if scale.distributed:
        check_distributed(specs, scale.shard)
    for other, given in (
        ("--values", reading.values is not None),
        ("--against", comparison.against is not None),
        ("--save-output", saving.output is not None),
    ):
        if given:
            raise UsageError(f"{other} needs all values, so it cannot be used with {scale.given}.")
    if scale.resume and saving.stats is None:
        raise UsageError("--resume completes a statistics file: add --save-stats FILE.npz.")
    shard = parse_shard(scale.shard) or Shard()
    if saving.stats is not None and not scale.resume:
        check_new(Path(saving.stats), THERE)
    return Task.of(specs, shard, reading, layer, saving)


def sums_first(task: Task, typed: Sequence[str], reading: InputFlags, layer: LayerFlags) -> Stored:
    """The task's own inputs as a statistics file would have them; it is not written yet.

    What a finished part at the target holds is not read again. `typed` are the inputs as the user
    wrote them. Raises UsageError, FileError and TensorError as commands that read tensors do.
    """
    summed = summed_first(task, reading, layer)
    if not summed.read:
        current().notes[f"{task.target} holds all inputs already, so none was read again"] = None
    said = inputs_said(typed)
    if task.shard.n > 1:
        said += f" (shard {task.shard})"
    stored = stored_of_all(summed.capture, said, layer)
    return replace(stored, kept=summed.kept, new=summed.new)


def inputs_said(typed: Sequence[str]) -> str:
    """The first of the inputs as the user wrote them, and how many more there are."""
    return " ".join(typed[:3]) + (f" and {len(typed) - 3} more" if len(typed) > 3 else "")


def stored_of_all(capture: Capture, said: str, layer: LayerFlags) -> Stored:
    """The one layer of a capture, which is called `said`."""
    from bncli.commands.compute.stored import stored_of

    return stored_of(capture, capture.layers[0], [Path(said)], [capture], training=layer.training)


@dataclass(frozen=True, slots=True)
class Summed:
    """The sums of a task.

    `kept` says that its target holds them as they are, `new` that there is no such file yet, and
    `read` that an input was read for them.
    """

    capture: Capture
    kept: bool
    new: bool
    read: bool = True


def summed_first(task: Task, reading: InputFlags, layer: LayerFlags) -> Summed:
    """The sums of the task's own inputs; what a part at its target holds is not read again.

    Raises as `sums_first`.
    """
    part = task.part()
    held, rest = _held(task, part)
    if held is not None and not rest:
        # Inputs of other shards may have come, gone or been repaired, which changes none of this.
        record = replace(
            held.part,
            number=part.number,
            nbytes=part.nbytes,
            names=part.names,
            digest=part.digest,
        )
        same = record == held.part
        return Summed(replace(held, part=record), kept=same, new=False, read=False)
    if held is not None and task.per_batch:
        raise FileError(
            str(task.target),
            f"it holds {len(task.inputs) - len(rest)} of {len(task.inputs)} inputs, and "
            "--per-batch keeps their order, so nothing can be added; remove it, or name another "
            "file.",
        )
    capture = _read(rest, part, reading, layer, per_batch=task.per_batch)
    for spec in rest:
        check_still(split_spec(spec)[0])
    if held is not None:
        capture = _with_held(capture, held, str(task.target))
    return Summed(capture, kept=False, new=held is None)


def _held(task: Task, part: Part) -> tuple[Capture | None, list[str]]:
    """What a finished part at the target has, if there is one, and the inputs that it lacks."""
    from bncli.loaders.statistics import open_statistics

    if task.target is None or not Path(task.target).exists():
        return None, list(task.inputs)
    try:
        capture = open_statistics(task.target)
    except CorruptFileError as error:
        problem = error.problem.rstrip(".")
        raise CorruptFileError(
            error.path, f"{problem}; or remove it, and --resume makes it anew."
        ) from error
    current().may_renew(task.target)  # by what holds all that it holds
    held = set(held_inputs(Path(task.target), capture.part, part))
    return capture, [spec for spec in task.inputs if spec not in held]


def _read(
    specs: Sequence[str], part: Part, reading: InputFlags, layer: LayerFlags, *, per_batch: bool
) -> Capture:
    """The sums of these inputs. Raises UsageError where one is a statistics file."""
    from bncli.arguments.layer import check_count, resolve_layer
    from bncli.commands.compute.saved import capture_of

    paths = {spec: split_spec(spec)[0] for spec in specs}
    look(paths.values())
    for spec, path in paths.items():
        if is_statistics_file(path):
            raise UsageError(
                f"{spec} is a statistics file; merge such files without --shard, --distributed and "
                "--resume."
            )
    given = reading.open(specs, layer.state)
    run = resolve_layer(layer, given)
    if part.n == 1:  # one value a channel is too few for the whole alone
        check_count(given, run)
    return capture_of(given, run, layer, part, per_batch=per_batch)


def _with_held(new: Capture, held: Capture, target: str) -> Capture:
    """The sums of new inputs and of those that the target holds."""
    from bncli.loaders.statistics.merging import check_alike, merged

    check_alike([target, target], [new, held])
    return replace(merged([held, new]), part=new.part)
