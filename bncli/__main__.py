"""`python -m bncli`, and the console script: a signal ends either without a traceback."""

from __future__ import annotations

from bncli.process import signals


def entry_point() -> None:
    """Run bncli with the arguments of the process, and end it with the exit code."""
    signals.at_once()  # an interrupt while modules are imported has nothing to tidy up
    import sys
    import warnings

    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # a library's, on standard error, where sentences belong
    from bncli.cli import main

    signals.orderly()
    try:
        code = main()
    except KeyboardInterrupt:  # just before `main` would have caught it, or just after
        code = 130
    except signals.Terminated:
        code = 143
    signals.at_once()
    sys.exit(code)


if __name__ == "__main__":
    entry_point()
