"""Whole processes on large .npy files: time and peak resident memory."""

import numpy as np

from .conftest import Row
from .processes import BNCLI, measured, raced

NUMPY = """
import sys, numpy as np
x = np.load(sys.argv[1], mmap_mode="r")
print(x.mean((0, 2, 3))[0], x.var((0, 2, 3))[0])
"""
TORCH = """
import sys, numpy as np, torch
var, mean = torch.var_mean(torch.from_numpy(np.load(sys.argv[1])), (0, 2, 3))
print(mean[0], var[0])
"""


def test_two_gigabytes(tmp_path, rows):
    path = tmp_path / "x.npy"
    shape = (160, 64, 224, 224)
    rng = np.random.default_rng(0)
    x = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for image in x:
        rng.standard_normal(out=image, dtype=np.float32)
    del x
    contestants = {
        "bncli compute": (BNCLI, "compute", str(path)),
        "NumPy script": (NUMPY, str(path)),
        "torch script": (TORCH, str(path)),
    }
    seconds, memory = raced(contestants, 4)
    path.unlink()
    ours = min(seconds["bncli compute"])
    case = "process, 2 GB .npy"
    for name, wanted in (("NumPy script", 2.0), ("torch script", 5.0)):
        ratio = min(seconds[name]) / ours
        told = f"{ratio:.2f} ({ours:.2f} s; rival {min(seconds[name]):.2f} s)"
        rows.append(Row(case, name, "default", f"{wanted:.2f}", told, ratio >= wanted))
        ratio = memory[name] / memory["bncli compute"]
        told = f"{ratio:.1f} ({memory['bncli compute']:.0f} MB; rival {memory[name]:.0f} MB)"
        rows.append(Row(f"{case}, memory", name, "default", "", told, None))
    peak = memory["bncli compute"]
    rows.append(Row(f"{case}, memory", "250 MB", "default", "", f"{peak:.0f} MB", peak < 250))


def test_a_hundred_gigabytes(tmp_path, rows):
    """Sparse files: the reading and the arithmetic are real, the disk is spared."""
    took = {}
    for images in (160, 8000):
        path = tmp_path / f"{images}.npy"
        np.lib.format.open_memmap(path, "w+", np.float32, (images, 64, 224, 224))
        took[images] = measured(BNCLI, "compute", str(path), "--quiet")
        path.unlink()
    seconds, peak = took[8000]
    size = 8000 * 64 * 224 * 224 * 4 / 1e9
    pace = seconds / took[160][0]
    rows.append(
        Row(
            f"process, sparse {size:.0f} GB .npy",
            "2 GB sparse, 50 times",
            "default",
            "",
            f"{50 / pace:.2f} ({seconds:.1f} s, {size / seconds:.1f} GB/s, {peak:.0f} MB)",
            peak < 250 and pace < 60,
        )
    )
