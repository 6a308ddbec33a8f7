"""Whole processes on large .npy files: time and peak resident memory."""

import subprocess
import sys

import numpy as np
import pytest

from .conftest import Row

if sys.platform != "linux":
    pytest.skip("ru_maxrss is in KiB, and wait4 there, on Linux", allow_module_level=True)

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
BNCLI = "import sys; from bncli.cli import main; sys.exit(main())"


# A process's ru_maxrss begins with that of the one that started it, so a small one does.
STOPWATCH = """
import os, sys, time
begun = time.perf_counter()
null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
pid = os.posix_spawn(sys.executable, [sys.executable, "-c", *sys.argv[1:]], os.environ,
                     file_actions=null)
_, status, usage = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), time.perf_counter() - begun, usage.ru_maxrss * 1024)
"""


def measured(*arguments):
    """Wall-clock seconds and peak resident megabytes of a Python process."""
    told = subprocess.run(
        [sys.executable, "-c", STOPWATCH, *arguments], capture_output=True, text=True, check=True
    )
    code, seconds, peak = told.stdout.split()
    assert code in {"0", "1"}, told.stderr
    return float(seconds), float(peak) / 1e6


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
    seconds = {name: [] for name in contestants}
    memory = dict.fromkeys(contestants, 0.0)
    for _ in range(4):
        for name, arguments in contestants.items():
            took, peak = measured(*arguments)
            seconds[name].append(took)
            memory[name] = max(memory[name], peak)
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
