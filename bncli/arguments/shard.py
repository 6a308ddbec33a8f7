"""Which of the inputs a task takes: `--shard K/N`, or `auto` for what the scheduler says."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from bncli.arguments import options
from bncli.errors import UsageError
from bncli.light import dataclass
from bncli.loaders.names import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

Item = TypeVar("Item")

TORCHRUN = ("RANK", "WORLD_SIZE")
SLURM = "SLURM_ARRAY_TASK_ID"
_NOTHING = "''"


@dataclass(frozen=True, slots=True)
class Shard:
    """Every `n`-th of the inputs, from number `k` on; k from 0, as ranks and array tasks count."""

    k: int = 0
    n: int = 1

    def of(self, inputs: Iterable[Item]) -> list[Item]:
        """Its own of the inputs, which are in their order."""
        return list(inputs)[self.k :: self.n]

    def __str__(self) -> str:
        """As it is typed."""
        return f"{self.k}/{self.n}"


@dataclass(frozen=True, slots=True)
class PartFlags:
    """Which part of a larger run a call is."""

    shard: options.ShardText = None
    resume: options.Resume = False


@dataclass(frozen=True, slots=True)
class ScaleFlags(PartFlags):
    """The same where several ranks may work on one call."""

    distributed: options.Distributed = False

    @property
    def given(self) -> str:
        """The first of the flags that was given, "" for none."""
        if self.distributed:
            return "--distributed"
        return "--shard" if self.shard is not None else "--resume" if self.resume else ""


def parse_shard(text: str | None, environment: Mapping[str, str] | None = None) -> Shard | None:
    """The shard that `--shard` names, None where it was not given.

    "auto" takes it from the environment, that of the process by default; nothing else looks there.
    Raises UsageError for what is none, and for "auto" where the environment names none, or two.
    """
    if text is None:
        return None
    if text == "auto":
        return _from_environment(os.environ if environment is None else environment)
    found = re.fullmatch(r"(-?[0-9]{1,9})/([0-9]{1,9})", text.strip())
    if found is None:
        raise UsageError(
            f"--shard {quoted(text) or _NOTHING}: write K/N, such as 0/16 for the first of 16 "
            "shards, or auto."
        )
    k, n = map(int, found.groups())
    return _checked(k, n, f"--shard {quoted(text)}")


def _checked(k: int, n: int, given: str) -> Shard:
    """The shard. Raises UsageError where there is none of that number."""
    from bncli.model.part import MOST_SHARDS

    if n < 1:
        raise UsageError(f"{given}: there must be at least one shard.")
    if n > MOST_SHARDS:
        raise UsageError(f"{given}: there can be at most {MOST_SHARDS} shards.")
    if not 0 <= k < n:
        raise UsageError(f"{given}: shards are counted from 0, so K must be from 0 to {n - 1}.")
    return Shard(k, n)


def _from_environment(environment: Mapping[str, str]) -> Shard:
    """The shard of this process, of torchrun or of a Slurm array. Raises UsageError."""
    ranks = [name for name in TORCHRUN if environment.get(name)]
    if ranks and environment.get(SLURM):
        raise UsageError(
            f"--shard auto: {SLURM} is set, and so {'are' if len(ranks) > 1 else 'is'} "
            f"{' and '.join(ranks)}; they may mean different shards, so write --shard K/N."
        )
    if ranks:
        rank, world = (_whole(name, environment) for name in TORCHRUN)
        return _checked(rank, world, f"--shard auto: RANK {rank} of WORLD_SIZE {world}")
    if environment.get(SLURM):
        return _of_slurm(environment)
    raise UsageError(
        f"--shard auto: neither RANK and WORLD_SIZE nor {SLURM} is set; run it with torchrun or "
        "as a Slurm array, or write --shard K/N."
    )


def _of_slurm(environment: Mapping[str, str]) -> Shard:
    """The shard of a task of a Slurm array, whatever its numbers are."""
    task, least, count = (
        _whole(f"SLURM_ARRAY_TASK_{name}", environment) for name in ("ID", "MIN", "COUNT")
    )
    step_name = "SLURM_ARRAY_TASK_STEP"
    step = _whole(step_name, environment) if environment.get(step_name) else 1
    if step < 1 or (task - least) % step:
        raise UsageError(
            f"--shard auto: task {task} is not one of this array's, which begins at {least} in "
            f"steps of {step}; give the array as FIRST-LAST or FIRST-LAST:STEP, or write "
            "--shard K/N."
        )
    given = f"--shard auto: task {task} of an array of {count} from {least} on"
    most_name = "SLURM_ARRAY_TASK_MAX"
    most = _whole(most_name, environment) if environment.get(most_name) else None
    holes = most is not None and (most - least) // step + 1 != count
    if holes or count == 1:
        raise UsageError(
            f"{given} may be one of a larger array of which only a part was submitted; submit the "
            "whole array again with --resume, or write --shard K/N."
        )
    k = (task - least) // step
    if not 0 <= k < count:
        raise UsageError(
            f"{given} in steps of {step} would be shard {k}; give the array as FIRST-LAST or "
            "FIRST-LAST:STEP, or write --shard K/N."
        )
    return _checked(k, count, given)


def _whole(name: str, environment: Mapping[str, str]) -> int:
    """A whole number from the environment. Raises UsageError where it is missing or is none."""
    text = environment.get(name, "")
    if not re.fullmatch(r"[0-9]{1,9}", text):
        said = f"is '{quoted(text, 20)}', which is not a whole number" if text else "is not set"
        raise UsageError(f"--shard auto: {name} {said}; write --shard K/N.")
    return int(text)


def no_inputs(shard: Shard, inputs: Sequence[object]) -> str:
    """The verdict on a shard that has none of the inputs."""
    inputs_said = "1 input" if len(inputs) == 1 else f"{len(inputs)} inputs"
    return (
        f"shard {shard} has nothing to do, because there {'is' if len(inputs) == 1 else 'are'} "
        f"only {inputs_said}"
    )
