"""The memory that a piece of work takes at its highest, where Linux says so."""

from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


def kilobytes(field):
    """A number of kilobytes from the kernel's account of this process."""
    line = next(line for line in STATUS.read_text("utf-8").splitlines() if line.startswith(field))
    return int(line.split()[1])


def mark():
    """Forget the highest mark so far; the memory that is in use now, in kilobytes."""
    if not CLEAR.exists():
        return 0
    CLEAR.write_text("5")  # resets VmHWM; getrusage cannot, and begins with the parent's
    return kilobytes("VmRSS")


def grown(before):
    """How far the highest mark since then lies above it, in kilobytes; 0 where unknown."""
    return kilobytes("VmHWM") - before if CLEAR.exists() else 0
