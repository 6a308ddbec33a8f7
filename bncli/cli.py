"""The command line: mounts the commands, renders what they return, catches, and exits."""

from __future__ import annotations

import errno
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from bncli import __version__, signals
from bncli.commands import COMMANDS, DOCUMENTS, WITHOUT_FILES
from bncli.commands._options import NoChecksum
from bncli.completion import whole_words
from bncli.errors import BncliError, ExitCode
from bncli.given_once import GivenOnce
from bncli.output import Delivery, Output
from bncli.reading import reading
from bncli.report import Report
from bncli.streams import abandon_standard_output, forget_impossible_sizes, print_text, say

OUT_OF_MEMORY = re.compile(r"^OutOfMemoryError|can't allocate memory|CUDA out of memory")
"""What PyTorch's errors say where there is not enough memory."""


def build_app(arguments: Sequence[str] = ()) -> typer.Typer:
    """The Typer application with every command mounted, or only what these arguments need.

    Typer takes some milliseconds for each command, and a call has use for one.
    """
    app = typer.Typer(
        name="bncli",
        help="Verify and inspect Batch Normalization: statistics, running buffers, checkpoints.",
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",  # which joins a docstring's lines into paragraphs
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
        """Verify and inspect Batch Normalization: statistics, running buffers, checkpoints."""

    first = next(iter(arguments), "")
    if first not in {"--version", *map(_typed, COMMANDS), *map(_typed, DOCUMENTS)}:
        first = ""
    for command in COMMANDS:
        if first in {"", _typed(command)}:
            app.command(_typed(command), cls=GivenOnce)(_with_output(command))
    for document in DOCUMENTS:
        if first in {"", _typed(document)}:
            app.command(_typed(document), cls=GivenOnce)(_printed(document))
    return app


def _typed(function: Callable[..., Any]) -> str:
    """A command's name as it is typed."""
    return function.__name__.replace("_", "-")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bncli {__version__}")
        raise typer.Exit


def bare(hint: Any) -> Any:
    """An annotation without the Optional that Python 3.10 puts around it where the default is None.

    Typer would not see an argument or an option in what `Annotated` says inside of it.
    """
    arguments = get_args(hint)
    if get_origin(hint) is Union and len(arguments) == 2 and get_origin(arguments[0]) is Annotated:
        return arguments[0]
    return hint


def _with_output(command: Callable[..., Report]) -> Callable[..., ExitCode]:
    """The command with the flags of `Output` added, its report rendered, its exit code returned."""
    shared = get_type_hints(Output, include_extras=True)
    reads = command not in WITHOUT_FILES
    own = {name: bare(hint) for name, hint in get_type_hints(command, include_extras=True).items()}
    defaults = {name: parameter.default for name, parameter in _parameters(Output).items()}

    def run(**flags: Any) -> ExitCode:
        from bncli.gate.settings import load_settings

        with reading(checksum=not (reads and flags.pop("no_checksum"))):
            for name, value in load_settings().items():
                if name in flags and flags[name] in (None, []):
                    flags[name] = value
            delivery = Delivery(Output(**{name: flags.pop(name) for name in shared}))
            return delivery.deliver(command(**flags))

    parameters = [
        parameter.replace(annotation=own[name]) for name, parameter in _parameters(command).items()
    ]
    if reads:
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(
            inspect.Parameter("no_checksum", kind, default=False, annotation=NoChecksum)
        )
    parameters += [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation
        )
        for name, annotation in shared.items()
    ]
    run.__name__ = command.__name__
    run.__doc__ = command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # Typer reads it
    return run


def _printed(document: Callable[[], str]) -> Callable[[], None]:
    """The command that prints a document as it is."""

    def run() -> None:
        print_text(document())

    run.__name__ = document.__name__
    run.__doc__ = document.__doc__
    return run


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def main(argv: Sequence[str] | None = None) -> int:
    """Run bncli with these arguments (the process's own by default) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # a terminal that lacks a character shows "?"
        forget_impossible_sizes()
        with whole_words():
            code = build_app(arguments)(arguments, prog_name="bncli", standalone_mode=False)
    except BncliError as error:
        return _failed(str(error), error.exit_code)
    except typer.TyperException as error:
        return _failed(" ".join(error.format_message().split()), ExitCode.ERROR)
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
        return _unforeseen(error)
    return int(code or 0)


def _unforeseen(error: Exception) -> ExitCode:
    """The exit code for what no command foresees: the system's trouble, or a bug of bncli."""
    if signals.received() is not None:  # which a library made an error of its own of
        interrupted = signals.received() == signals.INTERRUPT
        return ExitCode.INTERRUPTED if interrupted else ExitCode.TERMINATED
    if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"):
        return _failed("there is not enough memory for this input.", ExitCode.ERROR)
    if not isinstance(error, OSError):
        return _bug(error)
    if error.errno == errno.ENOSPC and error.filename is None:  # Typer's own help or version
        abandon_standard_output()
        return _failed("standard output: cannot be written (no space left).", ExitCode.ERROR)
    name = error.filename
    place = f"{os.fsdecode(name) if isinstance(name, bytes) else name}: " if name else ""
    return _failed(f"{place}the system refuses it ({error.strerror or error}).", ExitCode.ERROR)


def _failed(sentence: str, code: ExitCode) -> ExitCode:
    """Say what went wrong, and give the exit code back."""
    say(sentence)
    return code


def _closed_pipe() -> ExitCode:
    """End quietly: nobody reads any more."""
    abandon_standard_output()
    return ExitCode.CLOSED_PIPE


def _bug(error: Exception) -> ExitCode:
    """Say where bncli broke, in a line that can be reported."""
    import traceback

    last = traceback.extract_tb(error.__traceback__)[-1]
    return _failed(
        f"a bug in bncli {__version__}, please report this line to its maintainers with the "
        f"command: {type(error).__name__} at {Path(last.filename).name}:{last.lineno}: "
        f"{' '.join(str(error).split())}",
        ExitCode.BUG,
    )
