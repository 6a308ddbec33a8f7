"""Random numbers for one thing that runs, apart from those of everything else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bncli.backends.torch.tensors import library
from bncli.light import np


class RandomStreams:
    """Python's, NumPy's and PyTorch's random numbers (on the CPU), begun with a seed.

    Within `drawing` all three go on from where this object's last block left them; outside of it
    they are as if there had been no block. So data that are shuffled come in the same order each
    time they begin with the same seed.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._states: tuple[Any, ...] | None = None

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw from this object's numbers while the block runs."""
        outside = _states()
        if self._states is None:
            seed_all(self._seed)
        else:
            _set(self._states)
        try:
            yield
        finally:
            self._states = _states()
            _set(outside)

    @classmethod
    def now(cls) -> RandomStreams:
        """The numbers as they are."""
        made = cls(0)
        made._states = _states()
        return made

    def go_on(self) -> None:
        """Let everything else go on with these numbers."""
        if self._states is not None:
            _set(self._states)


def seed_all(seed: int) -> None:
    """Begin Python's, NumPy's and PyTorch's random numbers with a seed."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # the numbers that the user's code draws
    torch = library()
    torch.default_generator.manual_seed(seed)  # manual_seed would ask devices that nothing uses
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def _states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state(), library().get_rng_state()  # as above


def _set(states: tuple[Any, ...]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])  # as above
    library().set_rng_state(states[2])
