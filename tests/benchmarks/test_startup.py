"""Start-up: the whole process against the imports that it cannot do without."""

from pathlib import Path

from .conftest import Row
from .processes import BNCLI, raced

SMALL = str(Path(__file__).resolve().parents[2] / "examples" / "tutorial" / "x.npy")


def test_start_up(rows):
    seconds, _ = raced(
        {
            "import typer": ("import typer",),
            "bncli --version": (BNCLI, "--version"),
            "import numpy, typer": ("import numpy, typer",),
            "bncli compute -f json": (BNCLI, "compute", SMALL, "--format", "json"),
        },
        15,
    )
    took = {name: min(times) for name, times in seconds.items()}
    for ours, floor, most in (
        ("bncli --version", "import typer", 1.4),
        ("bncli compute -f json", "import numpy, typer", 1.4),
    ):
        times = took[ours] / took[floor]
        told = f"{1 / times:.2f} ({took[ours] * 1000:.0f} ms, {times:.2f} times the floor)"
        rows.append(Row(ours, floor, "", f"{1 / most:.2f}", told, times <= most))
