"""Which arguments the user's code takes, and what it is given."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from bncli.errors import ModelError
from bncli.light import dataclass

if TYPE_CHECKING:
    from bncli.backends.interface import BatchNormCall

MODULE_ARGUMENTS = ("num_features", "eps", "momentum", "affine", "track_running_stats")
"""What a class is made with, as torch.nn.BatchNorm2d."""

ARGUMENTS = (
    "weight",
    "bias",
    "running_mean",
    "running_var",
    "training",
    "momentum",
    "eps",
)
"""What a function takes behind the input, in this order."""

SIGNATURE = f"(x, {', '.join(ARGUMENTS)})"


@dataclass(frozen=True, slots=True)
class Taken:
    """The parameters of a function or a class.

    `names` are those that have one, in order; `wanted` those of them that have no default.
    `only_by_name` are those that cannot be given by position.
    `any_position` and `any_name` say that it has *args and **kwargs; both are true where Python
    does not tell, as of functions written in C. `first` is the annotation of the first, `returned`
    that of what is returned, each None where there is none, or it cannot be found.
    """

    names: tuple[str, ...]
    wanted: tuple[str, ...]
    any_position: bool
    any_name: bool
    first: Any
    returned: Any
    only_by_name: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: Callable[..., Any]) -> Taken:
        """What a callable says of itself; nothing of it is run but annotations written as text.

        A class that hands **kwargs on takes what the classes that it is made from take.
        """
        try:
            signature = inspect.signature(value)
        except (TypeError, ValueError):
            return cls((), (), True, True, None, None)
        named = [
            one
            for one in signature.parameters.values()
            if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        ]
        kinds = {one.kind for one in signature.parameters.values()}
        handed_on: tuple[str, ...] = ()
        if isinstance(value, type) and inspect.Parameter.VAR_KEYWORD in kinds:
            kinds.remove(inspect.Parameter.VAR_KEYWORD)
            handed_on = _names_of_bases(value)
        first = named[0].annotation if named else inspect.Parameter.empty
        return cls(
            tuple(dict.fromkeys((*(one.name for one in named), *handed_on))),
            tuple(one.name for one in named if one.default is one.empty),
            inspect.Parameter.VAR_POSITIONAL in kinds,
            inspect.Parameter.VAR_KEYWORD in kinds,
            _annotation(first, value),
            _annotation(signature.return_annotation, value),
            tuple(one.name for one in named if one.kind is one.KEYWORD_ONLY),
        )

    def has(self, name: str) -> bool:
        """Whether an argument can be given by this name."""
        return name in self.names or self.any_name


def _names_of_bases(kind: type) -> tuple[str, ...]:
    """The names of the parameters of all classes that a class is made from."""
    found: list[str] = []
    for base in kind.__mro__[1:]:
        with suppress(TypeError, ValueError):  # of what is written in C
            found += inspect.signature(base).parameters
    return tuple(name for name in found if name not in ("args", "kwargs"))


def _annotation(value: Any, of: Any) -> Any:
    """An annotation as an object; None where there is none, or its text names nothing."""
    if value is inspect.Parameter.empty:
        return None
    while (inner := getattr(of, "__wrapped__", None)) is not None:
        of = inner
    place = getattr(of, "__globals__", None)
    if place is None:  # an object that can be called
        method = inspect.getattr_static(type(of), "__call__", None)
        place = getattr(method, "__globals__", {})
    try:
        said = SimpleNamespace(__annotations__={"it": value})
        return typing.get_type_hints(said, globalns=place)["it"]
    except Exception:  # noqa: BLE001  # the text is the user's, and may do anything
        return None


def module_arguments(taken: Taken, call: BatchNormCall, called: str) -> dict[str, Any]:
    """What a class is given behind num_features, by name.

    Raises ModelError where it lacks an argument that this layer needs.
    """
    settings = call.settings
    moves = settings.training and settings.track_running_stats
    given = {
        "eps": (settings.eps, settings.eps != 1e-5),
        "momentum": (settings.momentum, moves and settings.momentum != 0.1),
        "affine": (settings.affine, not settings.affine),
        "track_running_stats": (settings.track_running_stats, not settings.track_running_stats),
    }
    return _chosen(taken, given, called)


def function_arguments(
    taken: Taken, values: Mapping[str, Any], call: BatchNormCall, called: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a function is given behind the input, of `values` by name: by position and by name.

    By name where it has these names, as torch.nn.functional.batch_norm has in another order, and
    else by position. Raises ModelError where it takes others, or lacks one that this layer needs.
    """
    behind = tuple(name for name in taken.names[1:] if name not in taken.only_by_name)
    in_place = all(
        ARGUMENTS.index(name) == at for at, name in enumerate(behind) if name in ARGUMENTS
    )
    extra = {*behind[len(ARGUMENTS) :], *taken.only_by_name}
    enough = (taken.any_position and not extra & set(ARGUMENTS)) or len(behind) >= len(ARGUMENTS)
    enough = enough and not extra & set(taken.wanted)
    if enough and in_place:
        return tuple(values.values()), {}
    if not set(taken.wanted[1:]) <= set(ARGUMENTS) or not taken.names:
        raise ModelError(
            f"{called} takes ({', '.join(taken.names)}); a function to compare with takes "
            f"{SIGNATURE}, and a class or what makes one takes num_features."
        )
    settings = call.settings
    moves = settings.training and settings.track_running_stats
    needed = {
        "weight": settings.affine,
        "bias": settings.affine,
        "running_mean": settings.track_running_stats,
        "running_var": settings.track_running_stats,
        "training": not settings.normalizes_with_batch,
        "momentum": moves and values["momentum"] != 0.1,
        "eps": settings.eps != 1e-5,
    }
    given = {name: (value, needed[name]) for name, value in values.items()}
    return (), _chosen(taken, given, called)


def _chosen(taken: Taken, given: Mapping[str, tuple[Any, bool]], called: str) -> dict[str, Any]:
    """The arguments that can be given, of (value, whether the layer needs it) by name."""
    for name, (value, needed) in given.items():
        if needed and not taken.has(name):
            shown = f" {name}={value}" if isinstance(value, int | float) or value is None else ""
            raise ModelError(
                f"{called} has no argument {name}, which this layer needs{shown and ':'}{shown}."
            )
    return {name: value for name, (value, _) in given.items() if taken.has(name)}
