"""What a run depends on beside the model and the data: versions, threads, the processor."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from bncli import __version__
from bncli.backends.torch.tensors import library
from bncli.light import np

if TYPE_CHECKING:
    from bncli.report import Value


def surroundings() -> dict[str, Value]:
    """Versions, and PyTorch's threads and CPU capability: with all the same, the bits are."""
    torch = library()
    return {
        "bncli": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
