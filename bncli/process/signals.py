"""Signals that end the process: with the exit code that a shell gives them, and no traceback.

Nothing but Python's own modules of the interpreter is imported here, so that the first of all
handlers is there before anything else is.
"""

from __future__ import annotations

import _thread
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    Handler = Callable[[int, FrameType | None], None]

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
"""The signals that are meant; a platform may lack one."""

INTERRUPT = int(signal.SIGINT)

_received: list[int] = []


class Terminated(BaseException):
    """SIGTERM, or a terminal that was closed: what is being done ends, and is tidied up."""


def received() -> int | None:
    """The first signal that came while `orderly` held, None where there was none."""
    return _received[0] if _received else None


def at_once() -> None:
    """From here on a signal ends the process on the spot: nothing is begun, or all is done."""
    _install(_leave)


def orderly() -> None:
    """From here on a signal raises, KeyboardInterrupt or `Terminated`, the second one no more."""
    _install(_raise)


def decided() -> None:
    """From here on a signal changes nothing: how the process ends is known to others already."""
    for name in ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is _raise:
            signal.signal(number, signal.SIG_IGN)


def end_main_thread() -> None:
    """Raise `Terminated` in the main thread, from another one, as if SIGTERM had come.

    Where that signal is not bncli's to handle, it is KeyboardInterrupt.
    """
    if signal.getsignal(signal.SIGTERM) is not _raise:
        _thread.interrupt_main()
    elif os.name == "posix":
        os.kill(os.getpid(), signal.SIGTERM)  # which ends a system call that waits, too
    else:
        _thread.interrupt_main(signal.SIGTERM)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # as signal wants it
    os._exit(130 if number == INTERRUPT else 143)


def _raise(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # as signal wants it
    _received.append(number)
    if number == INTERRUPT:
        raise KeyboardInterrupt
    if len(_received) == 1:  # a second one must not stop the tidying up
        raise Terminated


def _install(handler: Handler) -> None:
    """Handle the signals that nobody chose to ignore, as `nohup` and background jobs do."""
    for name in ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) not in {signal.SIG_IGN, None}:
            signal.signal(number, handler)
