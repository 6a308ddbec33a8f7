"""A call of a command from Python: what surrounds it, and the report that comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Any

from bncli.api.values import flags_of_call
from bncli.cli.flags import call
from bncli.commands import COMMANDS, command
from bncli.files.reading import reading
from bncli.given import objects_given
from bncli.report import FailOn

if TYPE_CHECKING:
    from collections.abc import Callable

    from bncli.api.report import Report
    from bncli.files.reading import Reading
    from bncli.report import Report as Plain

LIVE = ("diagnose", "recalibrate", "capture")
"""Commands that run a model: they set its mode, and the random numbers of the process."""

ONE_BY_ONE = RLock()
"""What a call of LIVE holds, so that several in threads do not change that under each other."""

GATE = ("fail_on", "select", "ignore", "baseline", "update_baseline")


@contextmanager
def surrounded(known: dict[str, object] | None = None, **how: Any) -> Iterator[Surroundings]:
    """What a call finds around it: files that it reads, and objects with the names of `known`."""
    with objects_given(known) as objects:
        with reading(**how) as read:
            yield Surroundings(objects, read, how)
        read.store = None  # a report remembers what was read, and not what that was


class Surroundings:
    """The objects of a call by their names, what it has read, and how it reads."""

    def __init__(self, objects: dict[str, object], read: Reading, how: Mapping[str, Any]) -> None:
        self.objects = objects
        self.read = read
        self.how = dict(how)


def report_of(name: str, given: Mapping[str, Any]) -> Report:
    """The report of a command for the arguments of its function in Python.

    Raises BncliError for what keeps it from looking.
    """
    return made(name, given, command(name))


def made(name: str, given: Mapping[str, Any], function: Callable[..., Plain]) -> Report:
    """The same of a `function` that takes a command's flags."""
    from bncli.api.report import Report

    how: dict[str, Any] = {}
    if COMMANDS[name].reads:
        how["checksum"] = not given.get("no_checksum")
        how["download"] = bool(given.get("download"))
    if COMMANDS[name].merges:
        how["allow_missing_parts"] = bool(given.get("allow_missing_parts"))
    with ExitStack() as stack:
        if name in LIVE:
            stack.enter_context(ONE_BY_ONE)
        around = stack.enter_context(surrounded(**how))
        flags = flags_of_call(name, given)
        around.read.arguments = _typed(name, flags)
        gate = _gate(flags)
        gate.begin()
        report = call(function, {**flags, "distributed": False})
        around.read.check_unchanged()
        report, _ = gate.counted(report)
        return Report.of(report, gate.fail_on, around)


def _gate(flags: dict[str, Any]) -> Any:
    """What counts the findings; its flags are taken out of `flags`."""
    from bncli.gate.verdict import Gate

    fail_on, *others = (flags.pop(each) for each in GATE)
    return Gate(fail_on or FailOn.ERROR, *others)


def _typed(name: str, flags: Mapping[str, Any]) -> tuple[str, ...]:
    """The call as it would be typed, which the file of a part of a whole remembers."""
    from bncli.api.arguments import arguments_of

    words: list[str] = []
    inputs: list[str] = []
    for argument in arguments_of(name):
        value = flags[argument.field]
        if value is None or value in (argument.default, []):
            continue
        values = value if argument.many else [value]
        if argument.positional:
            inputs += values
        elif isinstance(value, bool):
            words.append(argument.flag if value else argument.off)
        else:
            words += [f"{argument.flag}={getattr(each, 'value', each)}" for each in values]
    return (name.replace("_", "-"), *inputs, *words)
