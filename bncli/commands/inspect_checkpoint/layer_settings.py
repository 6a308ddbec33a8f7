"""eps and momentum of a checkpoint's layers: from flags, one for all or by glob, or the file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from bncli.arguments.checkpoints import refuse_globs
from bncli.errors import UsageError
from bncli.gate.places import matches
from bncli.light import dataclass

if TYPE_CHECKING:
    from bncli.report import Value
    from bncli.state_dict import LayerRefs

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Chosen(Generic[T]):
    """A value for layers whose names match: the last glob that fits decides."""

    globs: tuple[tuple[str, T], ...]

    @classmethod
    def parsed(cls, texts: list[str] | None, parse: Callable[[str], T]) -> Chosen[T]:
        """From flags such as `1e-3` and `backbone.*=1e-3`."""
        globs = []
        for text in texts or ():
            glob, equals, value = text.rpartition("=")
            globs.append((glob if equals else "*", parse(value)))
        # A value without a glob is for all layers that no glob names, wherever it stands.
        return cls(tuple(sorted(globs, key=lambda pair: pair[0] != "*")))

    def of(self, name: str) -> tuple[T] | None:
        """The value for a layer in a tuple of its own, since None is a momentum."""
        fits = [value for glob, value in self.globs if matches(name, glob)]
        return (fits[-1],) if fits else None


@dataclass(frozen=True, slots=True)
class LayerSettings:
    """eps and momentum as flags give them, and else as the file or the naming does."""

    eps: Chosen[float]
    momentum: Chosen[float | None]

    @classmethod
    def parsed(cls, eps: list[str] | None, momentum: list[str] | None) -> LayerSettings:
        """The flags' values. Raises UsageError for what is not an eps or a momentum."""
        _refuse_lists("--eps", eps)
        _refuse_lists("--momentum", momentum)
        return cls(Chosen.parsed(eps, _parse_eps), Chosen.parsed(momentum, _parse_momentum))

    def eps_of(self, layer: LayerRefs) -> tuple[float, str]:
        """A layer's eps, and where it comes from: "flag", "file" or "assumed"."""
        if given := self.eps.of(layer.name):
            return given[0], "flag"
        if layer.module is not None and layer.module.eps is not None:
            return layer.module.eps, "file"
        return layer.naming.eps, "assumed"

    def momentum_of(self, layer: LayerRefs) -> tuple[float | None, str]:
        """A layer's momentum (None for the cumulative average), and where it comes from."""
        if given := self.momentum.of(layer.name):
            return given[0], "flag"
        if (stored := _stored_momentum(layer)) is None:
            return layer.naming.momentum, "assumed"
        return stored[0], "file"

    def sources_of(self, layer: LayerRefs) -> dict[str, Value]:
        """Where eps and momentum come from, and which of them replace what the file stores."""
        eps, momentum = self.eps_of(layer), self.momentum_of(layer)
        stored = None if layer.module is None else layer.module.eps
        replaced = []
        if eps[1] == "flag" and stored not in (None, eps[0]):
            replaced.append("eps")
        if momentum[1] == "flag" and _stored_momentum(layer) not in (None, momentum[:1]):
            replaced.append("momentum")
        return {"eps_source": eps[1], "momentum_source": momentum[1], "replaced": replaced}

    def check_globs(self, names: Sequence[str]) -> None:
        """Raise UsageError where a glob means none of these layers."""
        for flag, chosen in (("--eps", self.eps), ("--momentum", self.momentum)):
            for glob, _ in chosen.globs:
                if glob != "*" and not any(matches(name, glob) for name in names):
                    refuse_globs(f"{flag} {glob}=...", [glob], names)


def _stored_momentum(layer: LayerRefs) -> tuple[float | None] | None:
    """The momentum that the file stores, in a tuple; None where it stores none."""
    if layer.module is None:
        return None
    from bncli.running_stats.stored import stored_momentum

    return stored_momentum(layer.module)


def _refuse_lists(flag: str, texts: list[str] | None) -> None:
    """Raise UsageError for several globs, each with its value, in one text."""
    for text in texts or ():
        parts = [part.strip() for part in text.split(",")]
        if len(parts) > 1 and all("=" in part for part in parts):
            each = " ".join(f"{flag} '{part}'" for part in parts)
            raise UsageError(f"{flag} {text}: repeat the flag instead: {each}.")


def _parse_momentum(text: str) -> float | None:
    from bncli.arguments.layer import parse_momentum  # only where the flag is given

    return parse_momentum(text)


def _parse_eps(text: str) -> float:
    try:
        eps = float(text)
    except ValueError:
        raise UsageError(f"--eps: '{text}' is not a number.") from None
    if not 0 <= eps < math.inf:
        raise UsageError(f"--eps {text}: eps must be a finite number, 0 or above.")
    return eps
