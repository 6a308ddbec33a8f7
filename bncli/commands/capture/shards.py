"""A part of a larger capture: its record, and the finished one that need not be made again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.arguments.shard import Shard, parse_shard
from bncli.errors import BncliError, FileError, UsageError
from bncli.given import is_given
from bncli.light import dataclass
from bncli.live.imports import CodeName, code_file, code_name
from bncli.loaders import split_spec
from bncli.loaders.file_marks import check_marks, described, marks_of
from bncli.loaders.interface import STANDARD_INPUT
from bncli.loaders.parts import held_inputs, made_part
from bncli.loaders.patterns import expanded, natural
from bncli.loaders.whole import Models, files_of
from bncli.model.part import Part

if TYPE_CHECKING:
    from bncli.arguments.model import ModelFlags
    from bncli.arguments.shard import ScaleFlags
    from bncli.live.data_source import Data
    from bncli.loaders.file_marks import Mark
    from bncli.model.capture import Capture

Marks = Mapping["Path", "Mark | None"]
"""Files as they were at the beginning."""


def data_marks(data: Data) -> Marks:
    """The files that the data's shard has, or may have, as they are before the first pass."""
    specs = [spec for spec in data.expected_inputs if code_name(spec) is None]
    paths = (split_spec(spec)[0] for spec in specs)
    return marks_of(path for path in paths if path != STANDARD_INPUT)


@dataclass(frozen=True, slots=True)
class Task:
    """What one task of a larger run has to do: this model over its shard of the batches.

    `target` is where its part will be, if one is to be written, `resume` says that it may be there
    already, and `given` names the flag that made it a task, "" for none.
    """

    model: str
    flags: ModelFlags
    shard: Shard
    target: str | None
    per_batch: bool
    resume: bool
    given: str

    def marks(self) -> Marks:
        """Checkpoint and code as they are before anything is opened; `record` asks for them."""
        flags = self.flags
        named = filter(None, map(code_name, (self.model, *(flags.data or ()))))
        files = [file for name in named if (file := code_file(name)) is not None]
        if flags.checkpoint is not None and flags.checkpoint != str(STANDARD_INPUT):
            files += files_of(split_spec(flags.checkpoint)[0], Models())
        return marks_of(files)

    def record(self, data: Data, marks: Marks) -> Part:
        """The record of the part that an iteration of the data made.

        An empty one for standard input. Raises FileError where checkpoint, code or inputs are not
        what they were before the first pass, with the `marks` of then.
        """
        inputs = {split_spec(spec)[0] for spec in data.inputs}
        others = inputs - {split_spec(spec)[0] for spec in data.own_inputs}
        part = self._record(data)
        check_marks({path: mark for path, mark in marks.items() if path not in others})
        return part

    def _record(self, data: Data) -> Part:
        if any(split_spec(spec)[0] == STANDARD_INPUT for spec in data.inputs):
            return Part()
        from bncli.backends.torch.tensors import library

        part = self._part(data.inputs, data.own_inputs)
        versions = {**part.versions, "torch": str(library().__version__)}
        number = 0 if data.divided else data.total or 0
        part = replace(part, number=number, batches=data.length or 0, versions=versions)
        # A whole is never made again by what it says, and two of the same have the same bytes.
        return part if part.n > 1 else replace(part, call=())

    def held(self) -> Capture | None:
        """The finished part at the target, where it is of the same shard, flags and inputs.

        Neither the model nor the data are opened for it, apart from a loader, which may say how
        many batches it has. None where there is no such file. Raises FileError for any other.
        """
        from bncli.loaders.statistics import open_statistics

        if not self.resume or self.target is None or not Path(self.target).exists():
            return None
        if not self.flags.data:
            return None  # which is refused later
        capture = open_statistics(self.target)
        part, path = capture.part, Path(self.target)
        every = list(_inputs(self.flags.data or ()))
        own = [each.path for each in part.inputs if each.path in set(every)]
        now = self._part(every, own)
        held_inputs(path, part, now)
        number = self._number_now(part, every)
        if (part.nbytes, part.digest) != (now.nbytes, now.digest) or number != part.number:
            from bncli.live.data_source import batches_said

            number = part.number or part.batches
            raise FileError(
                path,
                f"it is of {batches_said(number)}, and the data have other files, sizes or "
                "numbers of batches now; a part of a capture is made as a whole, so --resume "
                "cannot use it: remove the file, or name another one.",
            )
        return capture

    def _number_now(self, part: Part, every: list[str]) -> int:
        """How many batches all shards have, as loaders say it; else what the part says."""
        from bncli.arguments.model import open_model_data

        if not part.number or all(code_name(spec) is None for spec in every):
            return part.number
        total = open_model_data(self.flags, (self.shard.k, self.shard.n)).total
        return part.number if total is None else total

    def _part(self, every: list[str], own: list[str]) -> Part:
        """The record of these inputs."""
        names = {spec: name for spec in every if (name := code_name(spec)) is not None}
        code = {spec: code_file(name) for spec, name in names.items()}
        return made_part((self.shard.k, self.shard.n), every, own, self._flags(), code)

    def _flags(self) -> dict[str, object]:
        """The flags that change the numbers, and what the files behind them hold."""
        flags = self.flags
        given: dict[str, object] = {
            "MODEL": self.model,
            "--allow-missing-keys": True if flags.allow_missing_keys else None,
            "--arg": " ".join(flags.arg or ()) or None,
            "--batch-size": flags.batch_size,
            "--batches": flags.batches,
            "--device": flags.facts["device"],
            "--dtype": flags.dtype.value if flags.dtype else None,
            "--frozen": " ".join(flags.frozen or ()) or None,
            "--input-key": " ".join(flags.input_key or ()) or None,
            "--per-batch": True if self.per_batch else None,
            "--seed": flags.seed or 0,
        }
        code = code_name(self.model)
        file = None if code is None else code_file(code)
        if code is not None and file is not None:
            given[f"code {code.where}"] = described([file])
        if is_given(self.model):
            with suppress(BncliError):  # a class or a function, of which nothing can be told
                given["weights of MODEL"] = described([Path(self.model)])
        if flags.checkpoint is not None:
            path = split_spec(flags.checkpoint)[0]
            given["--checkpoint"] = flags.checkpoint
            given[f"checkpoint {path.name}"] = described(files_of(path, Models()))
        return given


def task_of(
    model: str, flags: ModelFlags, scale: ScaleFlags, target: str | None, *, per_batch: bool
) -> Task:
    """The task that the flags ask for.

    Raises UsageError for flags that do not go together, and FileError for a target that is there
    already and is not to be used.
    """
    from bncli.files.save import THERE, check_new

    if scale.resume and target is None:
        raise UsageError("--resume uses a finished statistics file: add --save-stats FILE.npz.")
    if scale.given and not scale.resume and target is not None:
        check_new(Path(target), THERE)
    if scale.given and any(split_spec(spec)[0] == STANDARD_INPUT for spec in flags.data or ()):
        raise UsageError(
            f"standard input can be read once only, so {scale.given} does not go with it."
        )
    shard = parse_shard(scale.shard) or Shard()
    return Task(model, flags, shard, target, per_batch, scale.resume, scale.given)


def _inputs(specs: list[str] | tuple[()]) -> list[str]:
    """The data's files and code as `Data.inputs` has them, none of which is opened."""
    from bncli.live.data_source import grouped

    every: list[str] = []
    for part in grouped(specs):
        every += [str(part)] if isinstance(part, CodeName) else expanded(part, key=natural)
    return every
