"""Which of the processes that torchrun started this one is, as their environment says."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping, Sequence

from bncli.errors import UsageError
from bncli.light import dataclass

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
START = "torchrun --nproc-per-node 4 -m bncli"
MOST_RANKS = 1 << 20
LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Place:
    """Rank `rank` of `world`, from 0, which meet at `address` and `port`.

    `local_rank` counts on this machine, whose name is `host` and which `local_world` ranks share.
    `hosted` says that torchrun keeps the
    store, where otherwise rank 0 does. `attempt` tells this start apart from others of the group.
    """

    rank: int
    world: int
    address: str
    port: int
    local_rank: int
    host: str
    hosted: bool
    attempt: str
    local_world: int = 1

    @classmethod
    def here(cls, environment: Mapping[str, str] | None = None) -> Place:
        """That of this process. Raises UsageError where the environment does not say it."""
        given = os.environ if environment is None else environment
        missing = [name for name in NEEDED if not given.get(name)]
        if len(missing) == len(NEEDED):
            raise UsageError(
                f"--distributed: torchrun did not start this process; begin the call with {START}."
            )
        if missing:
            raise UsageError(
                f"--distributed: {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not set, but "
                f"{' and '.join(name for name in NEEDED if name not in missing)} "
                f"{'is' if len(missing) == len(NEEDED) - 1 else 'are'}; torchrun sets them all."
            )
        world = _whole("WORLD_SIZE", given, 1, MOST_RANKS)
        rank = _whole("RANK", given, 0, world - 1)
        local_rank, local_world = (
            given.get(f"LOCAL_{name}", "") for name in ("RANK", "WORLD_SIZE")
        )
        attempt = given.get("TORCHELASTIC_RESTART_COUNT", "0")
        return cls(
            rank=rank,
            world=world,
            address=given["MASTER_ADDR"],
            port=_whole("MASTER_PORT", given, 1, LAST_PORT),
            local_rank=_whole_or(rank, local_rank),
            local_world=min(max(1, _whole_or(1, local_world)), world),
            host=socket.gethostname(),
            hosted=given.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            attempt=f"{given.get('TORCHELASTIC_RUN_ID', 'none')}/{attempt}",
        )

    @property
    def said(self) -> str:
        """The rank and its machine, in a sentence."""
        return f"rank {self.rank} on {self.host}"

    @property
    def keeps_store(self) -> bool:
        """Whether this process keeps the store that all ranks use."""
        return self.rank == 0 and not self.hosted

    @property
    def loopback(self) -> bool:
        """Whether all ranks are on this machine, by the address where they meet."""
        if self.address == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.address).is_loopback
        except ValueError:  # a name
            return False


def is_echo(arguments: Sequence[str]) -> bool:
    """Whether another process on this machine says the same of a wrong call."""
    return "--distributed" in arguments and os.environ.get("LOCAL_RANK", "0") != "0"


def _whole_or(default: int, text: str) -> int:
    """A whole number that is only a hint, `default` for anything else."""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else default


def _whole(name: str, given: Mapping[str, str], least: int, most: int) -> int:
    """A whole number from the environment. Raises UsageError for anything else."""
    text = given[name]
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        shown = text if len(text) <= 20 else f"{text[:20]}..."
        raise UsageError(
            f"--distributed: {name} is '{shown}', and it must be a whole number from {least} to "
            f"{most}; torchrun sets it."
        )
    return int(text)
