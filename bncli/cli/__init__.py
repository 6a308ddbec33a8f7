"""The command line: mounts the commands, renders what they return, catches, and exits."""

from __future__ import annotations

import errno
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bncli import __version__
from bncli.arguments.completion import INSTRUCTION, whole_words
from bncli.arguments.options import AllowMissingParts, Download, NoChecksum
from bncli.arguments.output import Output
from bncli.cli.delivery import Delivery
from bncli.cli.flags import call, flags_of
from bncli.cli.help import Command, Group, typed
from bncli.commands import COMMANDS, DOCUMENTS, command
from bncli.errors import BncliError, ExitCode
from bncli.files.reading import reading
from bncli.paths import as_shown
from bncli.process import signals
from bncli.process.streams import (
    abandon_standard_output,
    forget_impossible_sizes,
    print_text,
    say,
    take_any_character,
)
from bncli.report import printable
from bncli.urls import hidden

PURPOSE = "Verify and inspect BatchNorm: tensors, running statistics, checkpoints."
ALONE = {"-h", "--help", "--version"}
"""First words for which no command has to be built."""

OUT_OF_MEMORY = re.compile(r"^OutOfMemoryError|can't allocate memory|CUDA out of memory")
"""What PyTorch's errors say when there is not enough memory."""


def build_app(arguments: Sequence[str] = ()) -> typer.Typer:
    """The Typer application with every command mounted, or only what these arguments need.

    Typer takes some milliseconds for each command, and a call needs at most one.
    """
    app = typer.Typer(
        name="bncli",
        cls=Group,
        help=PURPOSE,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # the helps are bncli's own
    )

    @app.callback()
    def bncli(
        version: Annotated[
            bool,
            typer.Option(
                "--version", callback=_print_version, is_eager=True, help="Print the version."
            ),
        ] = False,
    ) -> None:
        """What bncli itself takes."""

    first = next(iter(arguments), "")
    everything = {**COMMANDS, **DOCUMENTS}
    by_typed = {typed(name): name for name in everything}
    if first in by_typed:
        everything = {by_typed[first]: everything[by_typed[first]]}
    for name, entry in everything.items() if first not in ALONE else ():
        run = _with_output(name, arguments) if name in COMMANDS else _printed(name)
        app.command(typed(name), cls=Command, short_help=entry.purpose)(run)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bncli {__version__}")
        raise typer.Exit


def _with_output(name: str, arguments: Sequence[str]) -> Callable[..., ExitCode]:
    """The command with the flags of `Output` added, its report rendered, its exit code returned."""
    function = command(name)
    added = _reading_flags(name)

    def work(flags: dict[str, Any], *, leads: bool = True) -> ExitCode:
        from bncli.gate.settings import load_settings

        how = {flag: flags.pop(flag) for flag in added}
        checksum = not how.pop("no_checksum", False)
        with reading(checksum=checksum, arguments=arguments, **how) as call_of:
            for setting, value in load_settings().items():
                if setting in flags and flags[setting] in (None, []):
                    flags[setting] = value
            output = call(Output, flags)
            delivery = Delivery(output) if leads else None
            if flags.get("distributed"):
                from bncli.process.ranks import current

                current().before_gather = call_of.check_unchanged
            report = call(function, flags)
            call_of.check_unchanged()
            return delivery.deliver(report) if delivery is not None else ExitCode.OK

    def run(**flags: Any) -> ExitCode:
        if not flags.get("distributed"):
            return work(flags)
        from bncli.files.save import remove_unfinished
        from bncli.moments.team import shared_by
        from bncli.process.ranks import current, together

        def of_ranks(leads: bool) -> ExitCode:
            with shared_by(current().local_world):
                return work(flags, leads=leads)

        typed = repr(sorted(flags.items()))
        explain = partial(_told, verbose=flags["verbose"])
        return together(of_ranks, explain, typed, remove_unfinished)

    parameters = flags_of(function)
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters += [
        inspect.Parameter(flag, kind, default=False, annotation=annotation)
        for flag, annotation in added.items()
    ]
    parameters += flags_of(Output)
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    run.__name__ = name
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # Typer reads it
    return run


def _reading_flags(name: str) -> dict[str, Any]:
    """The flags of how files are read that a command has without a word of its own."""
    entry = COMMANDS[name]
    return {
        **({"no_checksum": NoChecksum, "download": Download} if entry.reads else {}),
        **({"allow_missing_parts": AllowMissingParts} if entry.merges else {}),
    }


def _printed(name: str) -> Callable[[], None]:
    """The command that prints a document as it is."""
    function = command(name)

    def run() -> None:
        print_text(function())

    run.__name__ = name
    return run


def main(argv: Sequence[str] | None = None) -> int:
    """Run bncli with these arguments (the process's own by default) and return its exit code."""
    arguments = _as_flags(list(sys.argv[1:] if argv is None else argv) or ["--help"])
    arguments = [*map(as_shown, arguments)]
    try:
        take_any_character()
        forget_impossible_sizes()
        with whole_words():
            app = build_app(() if INSTRUCTION in os.environ else arguments)
            code = app(arguments, prog_name="bncli", standalone_mode=False)
    except BncliError as error:
        return _failed(*_told(error, verbose=_verbose(arguments)))
    except typer.TyperException as error:
        return _mistaken(error, arguments)
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except signals.Terminated:
        return ExitCode.TERMINATED
    except BrokenPipeError:
        return _closed_pipe()
    except SystemExit as error:  # Typer's own: the pipe closed while it wrote, or a completion
        if isinstance(error.__context__, BrokenPipeError):
            return _closed_pipe()
        return ExitCode.ERROR if error.code else ExitCode.OK
    except Exception as error:  # noqa: BLE001  # whatever it is, the exit code is a promise
        return _failed(*_unforeseen(error))
    return int(code or 0)


def _as_flags(arguments: list[str]) -> list[str]:
    """The arguments; `help` and `version`, typed as commands, are the flags of that name."""
    if arguments[0] == "help":
        return [*arguments[1:2], "--help"]
    return ["--version"] if arguments == ["version"] else arguments


def _verbose(arguments: Sequence[str]) -> bool:
    """Whether -v was given, alone or among other short flags."""
    return any(re.fullmatch(r"--verbose|-[a-z]*v", argument) for argument in arguments)


def _show_traceback(error: BncliError) -> None:
    """Print where an error comes from on standard error, in lines that no terminal obeys."""
    import traceback

    if sys.stderr is not None:
        lines = "".join(traceback.format_exception(error)).splitlines()
        sys.stderr.write("".join(f"{printable(hidden(line))}\n" for line in lines))


def _mistaken(error: typer.TyperException, arguments: Sequence[str]) -> ExitCode:
    """Say what is wrong with a call; of several processes with the same call, one says it."""
    from bncli.cli.mistakes import explained
    from bncli.process.ranks.place import is_echo

    return _failed("" if is_echo(arguments) else explained(error), ExitCode.ERROR)


def _told(error: Exception, *, verbose: bool) -> tuple[str, ExitCode]:
    """The sentence of any error, and the exit code; its traceback is shown where that is wanted."""
    if not isinstance(error, BncliError):
        return _unforeseen(error)
    if verbose:
        _show_traceback(error)
    return str(error), error.exit_code


def _unforeseen(error: Exception) -> tuple[str, ExitCode]:
    """What no command expects: an error of the system, or a bug in bncli; "" is not said."""
    if signals.received() is not None:  # which a library turned into an error of its own
        interrupted = signals.received() == signals.INTERRUPT
        return "", ExitCode.INTERRUPTED if interrupted else ExitCode.TERMINATED
    if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"):
        return "there is not enough memory for this input.", ExitCode.ERROR
    if not isinstance(error, OSError):
        return _bug(error), ExitCode.BUG
    if error.errno == errno.ENOSPC and error.filename is None:  # Typer's own help or version
        abandon_standard_output()
        return "standard output: cannot be written (no space left).", ExitCode.ERROR
    name = error.filename
    place = f"{os.fsdecode(name) if isinstance(name, bytes) else name}: " if name else ""
    return f"{place}the system refused it ({error.strerror or error}).", ExitCode.ERROR


def _failed(sentence: str, code: ExitCode) -> ExitCode:
    """Say what went wrong, if anything is to be said, and return the exit code."""
    if sentence:
        say(sentence)
    return code


def _closed_pipe() -> ExitCode:
    """End quietly: nobody is reading any more."""
    abandon_standard_output()
    return ExitCode.CLOSED_PIPE


def _bug(error: Exception) -> str:
    """Where bncli broke, in a line that can be reported."""
    import traceback

    last = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"a bug in bncli {__version__}; please report this line and the command to its "
        f"maintainers: {type(error).__name__} at {Path(last.filename).name}:{last.lineno}: "
        f"{' '.join(str(error).split())}"
    )
