"""Whole processes on large .npy files: time and peak resident memory."""

import importlib.util
import shutil

import numpy as np

from .conftest import Row
from .processes import BNCLI, Program, measured, raced

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
ENGINES = {"numpy": f"import sys; sys.modules['numkong'] = None; {BNCLI}"}
"""bncli with each engine that is there."""
if importlib.util.find_spec("numkong"):
    ENGINES = {"fast": BNCLI} | ENGINES
WANTED = {
    "fast": {"NumPy script": 2.0, "torch script": 8.0, "cat": 0.5},
    "numpy": {"NumPy script": 1.3, "torch script": 5.0, "cat": None},
}
IMAGES = 160  # of (64, 224, 224): 2 GB
MOST_IMAGES = 8000
FASTER = 2.5
"""What is wanted of the engine `fast` on the largest file, against the other."""


def test_two_gigabytes(tmp_path, rows):
    path = tmp_path / "x.npy"
    shape = (IMAGES, 64, 224, 224)
    rng = np.random.default_rng(0)
    x = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for image in x:
        rng.standard_normal(out=image, dtype=np.float32)
    del x
    contestants = {name: (code, "compute", str(path)) for name, code in ENGINES.items()}
    contestants |= {
        "NumPy script": (NUMPY, str(path)),
        "torch script": (TORCH, str(path)),
        "cat": Program((shutil.which("cat"), str(path))),
    }
    seconds, memory = raced(contestants, 4)
    path.unlink()
    for engine in ENGINES:
        ours, peak = min(seconds[engine]), memory[engine]
        case = f"{engine}: process, 2 GB .npy"
        for name, wanted in WANTED[engine].items():
            ratio = min(seconds[name]) / ours
            told = f"{ratio:.2f} ({ours:.2f} s; rival {min(seconds[name]):.2f} s)"
            least = "" if wanted is None else f"{wanted:.2f}"
            reached = None if wanted is None else ratio >= wanted
            rows.append(Row(case, name, "default", least, told, reached))
            told = f"{memory[name] / peak:.1f} ({peak:.0f} MB; rival {memory[name]:.0f} MB)"
            rows.append(Row(f"{case}, memory", name, "default", "", told, None))
        rows.append(Row(f"{case}, memory", "100 MB", "default", "", f"{peak:.0f} MB", peak < 100))


def test_a_hundred_gigabytes(tmp_path, rows):
    """Sparse files: the reading and the arithmetic are real, the disk is spared."""
    took = {}
    for images in (IMAGES, MOST_IMAGES):
        path = tmp_path / f"{images}.npy"
        np.lib.format.open_memmap(path, "w+", np.float32, (images, 64, 224, 224))
        for engine, code in ENGINES.items():
            # The first to read a file has its pages made, as far as memory holds them.
            tries = [
                measured(code, "compute", str(path), "--quiet")
                for _ in range(1 if images == MOST_IMAGES else 3)
            ]
            took[engine, images] = min(tries)
        path.unlink()
    size = MOST_IMAGES * 64 * 224 * 224 * 4 / 1e9
    times = MOST_IMAGES // IMAGES
    for engine in ENGINES:
        seconds, peak = took[engine, MOST_IMAGES]
        case = f"{engine}: process, sparse {size:.0f} GB .npy"
        pace = seconds / took[engine, IMAGES][0]
        told = f"{times / pace:.2f} ({seconds:.1f} s, {size / seconds:.1f} GB/s, {peak:.0f} MB)"
        reached = peak < 100 and pace < 1.2 * times
        rows.append(Row(case, f"2 GB sparse, {times} times", "default", "", told, reached))
    if len(ENGINES) > 1:
        case = f"fast: process, sparse {size:.0f} GB .npy"
        ratio = took["numpy", MOST_IMAGES][0] / took["fast", MOST_IMAGES][0]
        wanted = f"{FASTER:.2f}"
        rows.append(Row(case, "numpy", "default", wanted, f"{ratio:.2f}", ratio >= FASTER))
