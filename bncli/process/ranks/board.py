"""What the ranks tell each other, in a store that all of them read and write.

Nothing here waits: whoever waits for another rank looks again and again, and looks for failures
between.
"""

from __future__ import annotations

import json
from typing import Protocol

from bncli.errors import ExitCode
from bncli.light import dataclass


class Store(Protocol):
    """What is used of torch.distributed.Store."""

    def set(self, key: str, value: str) -> None:
        """Keep a text under a key."""

    def get(self, key: str) -> bytes:
        """What a key that is there has."""

    def add(self, key: str, amount: int) -> int:
        """Add to a number, which begins with 0, and give the sum."""

    def check(self, keys: list[str]) -> bool:
        """Whether all of these keys are there."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a group of ranks cannot go on.

    The rank at fault and its machine, the sentence that says why ("" where a signal ended it), and
    the exit code of all ranks.
    """

    rank: int
    host: str
    sentence: str
    code: int

    @property
    def said(self) -> str:
        """The line that is printed."""
        end = "" if self.sentence.endswith(".") else "."
        return (
            f"rank {self.rank} on {self.host}: {self.sentence}{end} "
            f"All ranks end with exit code {int(self.code)}."
        )


class Board:
    """The notes of a group, written and read by rank `rank`."""

    def __init__(self, store: Store, rank: int) -> None:
        self._store = store
        self._rank = rank

    def post(self, name: str, text: str = "") -> None:
        """Let all ranks read a text under a name."""
        self._store.set(name, text)

    def read(self, name: str) -> str | None:
        """What was posted under a name, None as long as nothing was."""
        if not self._store.check([name]):
            return None
        return self._store.get(name).decode()

    def has(self, names: list[str]) -> bool:
        """Whether something was posted under each of these names."""
        return self._store.check(names)

    def claim(self, name: str) -> bool:
        """Whether this is the first claim of a name."""
        return self._store.add(f"claim/{name}", 1) == 1

    # ------------------------------------------------------------------ failures

    def fail(self, failure: Failure) -> bool:
        """Say that the group cannot go on, and whether this is the first failure."""
        first = self.claim("failure")
        if first:
            row = [failure.rank, failure.host, failure.sentence, int(failure.code)]
            self.post("failure", json.dumps(row))
        return first

    def failure(self) -> Failure | None:
        """The first failure of any rank, None where there is none."""
        text = self.read("failure")
        return None if text is None else Failure(*json.loads(text))

    # ------------------------------------------------------------------ coming and going

    def beat(self) -> None:
        """Give a sign of life."""
        self._store.add(f"beat/{self._rank}", 1)

    def beats(self, rank: int) -> int:
        """How many signs of life a rank has given."""
        return self._store.add(f"beat/{rank}", 0)

    def come(self) -> bool:
        """Say that this rank is here; False where another process is here as this rank."""
        if not self.claim(f"rank/{self._rank}"):
            return False
        self._store.add("come", 1)
        return True

    def leave(self) -> None:
        """Say that this rank needs the others no more."""
        self._store.add("gone", 1)

    def all_gone(self) -> bool:
        """Whether all ranks that came have left."""
        return self._store.add("gone", 0) >= self._store.add("come", 0)

    def finish(self, code: ExitCode) -> None:
        """Say that rank 0 has delivered, and the exit code of all ranks."""
        self.post("code", str(int(code)))

    def code(self) -> ExitCode | None:
        """The exit code, None as long as rank 0 has not delivered."""
        text = self.read("code")
        return None if text is None else ExitCode(int(text))
