"""Where the ranks meet: torchrun's store, or rank 0's, and gloo for payloads."""

from __future__ import annotations

import errno
import os
import socket
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bncli.errors import MissingBackendError, RankError
from bncli.process.ranks.place import Place

if TYPE_CHECKING:
    from types import ModuleType

    from bncli.process.ranks.board import Store

JOIN_SECONDS = 300.0
"""How long a rank waits for the others to come."""

PIECE = 64 << 20
"""Bytes of a payload that are sent at a time."""

_TRY_SECONDS = 2.0
"""How long one attempt to connect takes at most; signals are heard between two."""
_PAUSE = 0.2


def library() -> ModuleType:
    """torch.distributed. Raises MissingBackendError where it is not installed."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its warnings of connections that end
    try:
        import torch.distributed
    except ImportError as error:
        if "failed to map segment" in str(error):  # it is there, but there is no room for it
            raise MemoryError from error
        raise MissingBackendError(
            "--distributed needs PyTorch, which is not installed here: python -m pip install torch"
        ) from error
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        raise MissingBackendError(
            "--distributed: this PyTorch was built without torch.distributed and gloo; install "
            "another build: python -m pip install torch"
        )
    return torch.distributed


def open_stores(place: Place) -> tuple[Any, Store, Store]:
    """The store itself, and two connections to it: for this thread, and for the watcher's.

    Raises RankError where nobody keeps a store, in time, at the address that the environment says,
    or where its port is in use.
    """
    distributed = library()
    deadline = time.monotonic() + JOIN_SECONDS
    keeper = _kept_store(place) if place.keeps_store else None
    first = keeper if keeper is not None else _connected(place, deadline)
    second = _connected(place, deadline)
    prefix = f"bncli/{place.attempt}"
    return (
        first,
        distributed.PrefixStore(prefix, first),
        distributed.PrefixStore(prefix, second),
    )


def _kept_store(place: Place) -> Any:
    """The store that rank 0 keeps, which listens on this machine alone where all ranks are here."""
    distributed = library()
    where = place.address if place.loopback else ""
    try:
        # Listening by itself, torch.distributed would listen everywhere.
        family = socket.AF_INET6 if ":" in where else socket.AF_INET
        listening = socket.create_server((where, place.port), family=family, backlog=2048)
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            why = "another process uses the port; choose another with --master-port"
        raise RankError(
            f"{place.said}: cannot listen at {place.address}:{place.port} ({why})."
        ) from error
    return distributed.TCPStore(
        place.address,
        place.port,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=JOIN_SECONDS),
        master_listen_fd=listening.detach(),
    )


def _connected(place: Place, deadline: float) -> Any:
    """A connection to the store. Raises RankError where there is none before the deadline."""
    distributed = library()
    where = f"{place.address}:{place.port}"
    while True:
        try:
            # By Python first, which hears signals meanwhile.
            socket.create_connection((place.address, place.port), _TRY_SECONDS).close()
            store = distributed.TCPStore(
                place.address,
                place.port,
                is_master=False,
                wait_for_workers=False,
                timeout=timedelta(seconds=_TRY_SECONDS),
            )
        except socket.gaierror as error:
            why = f"the name MASTER_ADDR cannot be found: {error.strerror}"
        except OSError as error:
            why = error.strerror or str(error)
        except RuntimeError:  # torch.distributed's errors
            why = "what listens there is not a store of torch.distributed"
        else:
            store.set_timeout(timedelta(seconds=JOIN_SECONDS))
            return store
        if time.monotonic() >= deadline:
            who = "torchrun" if place.hosted else "rank 0"
            raise RankError(
                f"{place.said}: {who} did not answer at {where} within {JOIN_SECONDS:g} s ({why})."
            )
        time.sleep(_PAUSE)


class Gloo:
    """Sends payloads between ranks by torch.distributed, whose default group is made for that.

    What the user's code does with torch.distributed, such as a DistributedSampler, finds the group.
    """

    def __init__(self, place: Place, store: Any) -> None:
        self._distributed = library()
        if place.loopback:  # by itself, gloo listens where the machine's own name leads
            names = {name for _, name in socket.if_nameindex()} & {"lo", "lo0"}
            if names:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", names.pop())
        try:
            self._distributed.init_process_group(
                "gloo",
                store=self._distributed.PrefixStore(f"bncli/{place.attempt}/gloo", store),
                rank=place.rank,
                world_size=place.world,
                timeout=timedelta(seconds=JOIN_SECONDS),
            )
        except (RuntimeError, ValueError) as error:
            raise RankError(
                f"torch.distributed cannot connect the ranks by gloo ({_first_line(error)}); "
                "GLOO_SOCKET_IFNAME names the network interface that it takes."
            ) from error

    def send(self, payload: bytes) -> None:
        """Send to rank 0. Raises RankError where the connection is lost."""
        import torch

        if not payload:
            return
        values = torch.frombuffer(bytearray(payload), dtype=torch.uint8)
        try:
            for begin in range(0, len(payload), PIECE):
                self._distributed.send(values[begin : begin + PIECE], 0)
        except (RuntimeError, ValueError) as error:  # a group that the user's code took apart
            raise RankError(f"rank 0 does not take the results ({_first_line(error)}).") from error

    def receive(self, rank: int, size: int) -> bytes:
        """The payload of `size` bytes that a rank sends. Raises RankError."""
        import torch

        if not size:
            return b""
        payload = bytearray(size)
        values = torch.frombuffer(payload, dtype=torch.uint8)
        try:
            for begin in range(0, size, PIECE):
                self._distributed.recv(values[begin : begin + PIECE], rank)
        except (RuntimeError, ValueError) as error:
            raise RankError(
                f"rank {rank} does not send its results ({_first_line(error)})."
            ) from error
        return bytes(payload)

    def close(self) -> None:
        """Take the group apart, if the user's code has not."""
        if self._distributed.is_initialized():
            self._distributed.destroy_process_group()


def _first_line(error: Exception) -> str:
    """What a library says, without the trace of its own code behind it."""
    return (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")
