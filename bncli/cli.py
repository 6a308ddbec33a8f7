"""The command line: mounts the commands, renders what they return, catches, and exits."""

from __future__ import annotations

import errno
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from bncli import __version__
from bncli.commands import COMMANDS
from bncli.commands._options import OUTPUT
from bncli.errors import BncliError, ExitCode, FileError
from bncli.renderers import SUFFIXES, Format, format_of, renderer
from bncli.renderers.interface import RenderContext
from bncli.report import FailOn, Report, printable


@dataclass(frozen=True, slots=True)
class Output:
    """The flags that every command has: where its report goes, and what fails."""

    format: Annotated[
        Format,
        typer.Option("--format", "-f", help="How the report is shown.", rich_help_panel=OUTPUT),
    ] = Format.TABLE
    output: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=f"Write the report to a file too ({', '.join(SUFFIXES)}); may be repeated.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ] = None
    fail_on: Annotated[
        FailOn,
        typer.Option(help="The least severity that makes the exit code 1.", rich_help_panel=OUTPUT),
    ] = FailOn.ERROR
    width: Annotated[
        int | None,
        typer.Option(
            min=20,
            metavar="N",
            help="Columns to draw tables in.",
            rich_help_panel=OUTPUT,
            show_default="the terminal's",
        ),
    ] = None
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Print no report and no progress.", rich_help_panel=OUTPUT
        ),
    ] = False


def build_app() -> typer.Typer:
    """The Typer application with every command mounted."""
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

    for command in COMMANDS:
        app.command(command.__name__.replace("_", "-"))(_with_output(command))
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bncli {__version__}")
        raise typer.Exit


def _with_output(command: Callable[..., Report]) -> Callable[..., ExitCode]:
    """The command with the flags of `Output` added, its report rendered, its exit code returned."""
    shared = get_type_hints(Output, include_extras=True)
    own = get_type_hints(command, include_extras=True)
    defaults = {name: parameter.default for name, parameter in _parameters(Output).items()}

    def run(**flags: Any) -> ExitCode:
        output = Output(**{name: flags.pop(name) for name in shared})
        _check_outputs(output)
        if output.quiet:
            from bncli import progress

            progress.silence()
        return _deliver(command(**flags), output)

    parameters = [
        parameter.replace(annotation=own[name]) for name, parameter in _parameters(command).items()
    ]
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


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def _check_outputs(output: Output) -> None:
    """Raise before the work begins where a report could not be written after it."""
    from bncli.save import check_writable

    for path in output.output or ():
        format_of(path)
        check_writable(path)


def _deliver(report: Report, output: Output) -> ExitCode:
    """Write the report where it should go, and return the exit code it asks for."""
    from bncli.save import refuse_overwriting, replacing

    exit_code = report.exit_code(output.fail_on)
    for path in output.output or ():
        refuse_overwriting(path, report.read, "--output")
    for path in output.output or ():
        text = renderer(format_of(path))(report, RenderContext(exit_code, output.width))
        with replacing(Path(path)) as stream:
            stream.write(text.encode(errors="backslashreplace"))  # a path may be no Unicode
    if not output.quiet:
        terminal = sys.stdout is not None and sys.stdout.isatty()
        width = output.width
        if width is None and terminal:
            width = os.get_terminal_size(sys.stdout.fileno()).columns or 80
        color = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        context = RenderContext(exit_code, width, terminal, color)
        _print(renderer(output.format)(report, context))
    return exit_code


def _print(text: str) -> None:
    """Write to standard output. Raises FileError where it cannot be written."""
    place = "standard output"
    if sys.stdout is None:
        raise FileError(place, "is closed.")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _abandon_standard_output()
        raise FileError(place, f"cannot be written ({error.strerror}).") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run bncli with these arguments (the process's own by default) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows "?"
    try:
        code = build_app()(arguments, prog_name="bncli", standalone_mode=False)
    except BncliError as error:
        return _say(str(error), error.exit_code)
    except typer.TyperException as error:
        return _say(error.format_message(), ExitCode.ERROR)
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return _closed_pipe()
    except SystemExit as error:  # Typer's own: the pipe closed while it wrote, or a completion
        if isinstance(error.__context__, BrokenPipeError):
            return _closed_pipe()
        return error.code if isinstance(error.code, int) else ExitCode.OK
    except OSError as error:
        if error.errno != errno.ENOSPC:
            return _bug(error)
        _abandon_standard_output()  # Typer's own help or version; reports go through `_print`
        return _say("standard output: cannot be written (no space left).", ExitCode.ERROR)
    except MemoryError:
        return _say("there is not enough memory for this input.", ExitCode.ERROR)
    except Exception as error:  # noqa: BLE001  # whatever it is, the exit code is a promise
        return _bug(error)
    return int(code or 0)


def _say(sentence: str, code: ExitCode) -> ExitCode:
    """Print one line on standard error, where there is one."""
    if sys.stderr is not None:
        line = printable(" ".join(sentence.split()))
        print(f"bncli: {line}", file=sys.stderr)  # noqa: T201  # its place
    return code


def _closed_pipe() -> ExitCode:
    """End quietly: nobody reads any more."""
    _abandon_standard_output()
    return ExitCode.CLOSED_PIPE


def _abandon_standard_output() -> None:
    """Let Python's last flush go nowhere, so that it does not complain either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bug(error: Exception) -> ExitCode:
    """Say where bncli broke, in a line that can be reported."""
    import traceback

    last = traceback.extract_tb(error.__traceback__)[-1]
    return _say(
        f"a bug in bncli {__version__}, please report this line to its maintainers with the "
        f"command: {type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {error}",
        ExitCode.BUG,
    )


def entry_point() -> None:
    """The console script."""
    sys.exit(main())
