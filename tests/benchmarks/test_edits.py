"""A large file copied with some of its bytes replaced, against cp; and held against it, cmp."""

import os
import random
import shutil

import pytest

from .conftest import Row
from .idle import await_idle
from .processes import measured

if shutil.which("cp") is None or shutil.which("cmp") is None:
    pytest.skip("cp and cmp are not here", allow_module_level=True)

BLOCK = 10_000_000
BLOCKS = 230
EDITS = 200
ROUNDS = 8
MEGABYTES = 60

OURS = """
import random, sys
from pathlib import Path
from bncli.files.edits import Edit, check_edited, write_edited
what, old, new, count = sys.argv[1:]
places = random.Random(0).sample(range(0, Path(old).stat().st_size, 4096), int(count))
edits = [Edit(place, bytes(2048)) for place in places]
{"write": write_edited, "check": check_edited}[what](Path(old), Path(new), edits)
"""
THEIRS = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"


def test_a_large_file(tmp_path, rows):
    old, new, plain = (tmp_path / name for name in ("old", "new", "plain"))
    block = random.Random(0).randbytes(BLOCK)
    with old.open("wb") as stream:
        stream.writelines(block for _ in range(BLOCKS))
    contestants = {
        "cp": (plain, (THEIRS, "cp", str(old), str(plain))),
        "write": (new, (OURS, "write", str(old), str(new), str(EDITS))),
        "cmp": (None, (THEIRS, "cmp", str(old), str(plain))),
        "check": (None, (OURS, "check", str(old), str(new), str(EDITS))),
    }
    took = dict.fromkeys(contestants, float("inf"))
    memory = dict.fromkeys(contestants, 0.0)
    for number in range(ROUNDS):
        # The first of two copies finds the memory and the disk in another state than the second
        # does, so they take turns at being first.
        order = ("write", "cp", "check", "cmp") if number % 2 else ("cp", "write", "cmp", "check")
        for name in order:
            made, arguments = contestants[name]
            if made is not None:
                made.unlink(missing_ok=True)
            os.sync()  # what one of them leaves to be written is not the next one's burden
            await_idle(3.0)
            seconds, peak = measured(*arguments)
            took[name] = min(took[name], seconds)
            memory[name] = max(memory[name], peak)
    for path in (old, new, plain):
        path.unlink()
    for ours, theirs, wanted in (("write", "cp", 1 / 1.2), ("check", "cmp", 1.0)):
        ratio = took[theirs] / took[ours]
        case = f"{ours} {EDITS} edits, 2.3 GB"
        told = f"{ratio:.2f} ({took[ours]:.2f} s; rival {took[theirs]:.2f} s)"
        rows.append(Row(case, theirs, "", f"{wanted:.2f}", told, ratio >= wanted))
        told = f"{memory[ours]:.0f} MB; {theirs} {memory[theirs]:.0f} MB"
        reached = memory[ours] <= MEGABYTES
        rows.append(Row(f"{case}, memory", f"{MEGABYTES} MB", "", "", told, reached))
