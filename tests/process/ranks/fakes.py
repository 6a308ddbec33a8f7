"""A store and a channel in this process, for tests of what ranks tell each other."""

from __future__ import annotations

import threading
from queue import Queue

from bncli.process.ranks.place import Place


class FakeStore:
    """What torch.distributed.Store does, or errors as where its keeper has gone."""

    def __init__(self):
        self._lock = threading.Lock()
        self._values: dict[str, bytes] = {}
        self.lost = False

    def _look(self):
        if self.lost:
            raise RuntimeError("Connection reset by peer")  # as torch.distributed's

    def set(self, key, value):
        self._look()
        with self._lock:
            self._values[key] = value.encode()

    def get(self, key):
        self._look()
        return self._values[key]

    def add(self, key, amount):
        self._look()
        with self._lock:
            total = int(self._values.get(key, b"0")) + amount
            self._values[key] = str(total).encode()
            return total

    def check(self, keys):
        self._look()
        return all(key in self._values for key in keys)


class FakeChannel:
    """Payloads by rank."""

    def __init__(self, queues: dict[int, Queue], rank: int) -> None:
        self._queues = queues
        self._rank = rank

    def send(self, payload):
        self._queues[self._rank].put(payload)

    def receive(self, rank, size):
        payload = self._queues[rank].get(timeout=10)
        assert len(payload) == size
        return payload

    def close(self):
        pass


def place(rank: int, world: int) -> Place:
    return Place(rank, world, "127.0.0.1", 29500, rank, f"node{rank}", hosted=True, attempt="t/0")
