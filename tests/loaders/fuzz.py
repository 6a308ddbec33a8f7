"""A seeded mutator over small files of every container.

    python -m tests.loaders.fuzz --mutants 100000 --seed 1

Each mutant is opened, every tensor in it is read, and some get new values. What comes out must be
values, bytes to replace inside of the file, or a BncliError, in little time and memory; anything
else is reported with the mutant's number, and the file is kept. The honest files come from another
process, so that PyTorch's own memory does not hide what a mutant takes.
"""

import argparse
import collections
import contextlib
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bncli.dtypes import DTYPES
from bncli.errors import BncliError, FileError
from bncli.files.reading import reading
from bncli.loaders import open_file
from bncli.loaders.patches import edits_of
from bncli.state_dict import batch_norm_layers, read_state, read_tensors

from . import memory

SLOW = 5.0
"""Seconds of the processor that one mutant may take."""
MOST_EDITED = 1000
"""Elements of a tensor that gets new values."""
LARGE = 300_000
"""Kilobytes that the process may grow by."""


@dataclass
class Tally:
    """What came of the mutants."""

    mutants: int = 0
    values: int = 0
    refused: collections.Counter = field(default_factory=collections.Counter)
    failures: list = field(default_factory=list)
    slowest: float = 0.0
    grown: int = 0


def seeds():
    """The honest files to start from, each with the files that must lie beside it."""
    import torch

    from .files import samples, saved, scripted
    from .pickles import call, dictionary, integer, name, tensor, text, torch_legacy, torch_zip, tup

    small = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    state = small.state_dict()
    found = {}
    for kind, sample in samples().items():
        beside = {k: v for k, v in sample.files.items() if k != sample.main}
        found[kind] = (sample.files[sample.main], beside)
    legacy = saved(state, _use_new_zipfile_serialization=False)
    found |= {
        "small-zip": (saved({"state_dict": state, "epoch": 3, "lr": [0.1, None]}), {}),
        "small-module": (saved(small), {}),
        "small-legacy": (legacy, {}),
        "small-legacy-4": (
            saved(state, _use_new_zipfile_serialization=False, pickle_protocol=4),
            {},
        ),
        "small-script": (scripted(small), {}),
        "plain-pickle": (pickle.dumps({"a": [1, 2.5, "x", (1, 2), {3}], "b": b"x" * 50}), {}),
        "by-hand": (
            torch_zip(
                dictionary(
                    a=tensor(),
                    b=tup(tensor((2, 2), (2, 1)), text("x"), integer(7)),
                    c=call(name("os", "getcwd"), text("y")),
                )
            ),
            {},
        ),
        "by-hand-legacy": (torch_legacy(dictionary(a=tensor(), b=tensor((2,), (2,)))), {}),
    }
    return found


def mutate(random_, data, others):
    """One changed copy of the data."""
    out = bytearray(data)
    kind = random_.randrange(8)
    interesting = [0, 1, 0x7F, 0x80, 0xFF, *b"()}]RbQct.\x94\x85\x93\x81N"]

    def place():
        # Half of the changes go to the ends, where headers and directories are.
        if random_.random() < 0.5 and len(out) > 600:
            near = random_.randrange(600)
            return near if random_.random() < 0.6 else len(out) - 1 - near
        return random_.randrange(len(out))

    if kind == 0:
        for _ in range(random_.choice((1, 1, 2, 4, 16))):
            out[place()] = random_.choice(interesting)
    elif kind == 1:
        for _ in range(random_.choice((1, 1, 2, 8))):
            out[place()] ^= 1 << random_.randrange(8)
    elif kind == 2:
        del out[place() :]
    elif kind == 3:
        begin = place()
        del out[begin : begin + random_.choice((1, 2, 8, 64))]
    elif kind == 4:
        begin, source = place(), random_.choice(others)
        from_ = random_.randrange(len(source))
        piece = source[from_ : from_ + random_.choice((1, 4, 16, 64, 256))]
        out[begin : begin + (len(piece) if random_.random() < 0.5 else 0)] = piece
    elif kind == 5:
        begin = place()
        width = random_.choice((2, 4, 8))
        number = random_.choice((0, 1, 0xFF, 1 << 15, 1 << 31, (1 << 63) - 1, (1 << 64) - 1))
        out[begin : begin + width] = (number & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    elif kind == 6:
        begin = place()
        piece = out[begin : begin + random_.choice((1, 3, 9, 30))]
        out[begin:begin] = piece * random_.choice((1, 2, 100))
    else:
        a, b = sorted((place(), place()))
        out[a:b] = reversed(out[a:b]) if b - a < 64 else out[b : b + (b - a)]
    return bytes(out)


def check(path):
    """Open the file and read all that is in it; whether it opened. Raises what it finds."""
    file = open_file(path)
    check_edits(file)
    for ref in file.tensors.values():
        with contextlib.suppress(BncliError):
            values = ref.read()
            assert values.shape == ref.shape
            np.count_nonzero(values)  # every element is really there
    for layer in batch_norm_layers(file):
        with contextlib.suppress(FileError):  # a damaged tensor
            _, problems = read_tensors(layer)
            assert all(problem.isprintable() for problem in problems)
        with contextlib.suppress(BncliError):
            read_state(layer)
    return True


def check_edits(file):
    """Give new values to some tensors, without writing them."""
    for ref in [ref for ref in file.tensors.values() if ref.numel <= MOST_EDITED][:8]:
        kind = float if DTYPES.get(ref.dtype, DTYPES["int64"]).kind == "float" else int
        with contextlib.suppress(BncliError):
            for path, edits in edits_of(file, {ref.name: np.ones(ref.shape, kind)}).items():
                end = 0
                for edit in edits:
                    assert end <= edit.offset < edit.end
                    end = edit.end
                assert end <= path.stat().st_size


def run(mutants, seed, directory, keep=None):
    """Try that many mutants and tally what came of them."""
    random_ = random.Random(seed)
    made = subprocess.run(
        [sys.executable, "-m", __spec__.name, "--seeds"], check=True, capture_output=True
    )
    files = pickle.loads(made.stdout)
    names = sorted(files)
    assert "torch" not in sys.modules
    contents = [files[name][0] for name in names]
    tally = Tally()
    for name in names:
        for beside, data in files[name][1].items():
            (directory / beside).write_bytes(data)
    path = directory / "mutant"
    before = memory.mark()
    for number in range(mutants):
        data = random_.choice(contents)
        for _ in range(random_.choice((1, 1, 1, 2, 3))):
            data = mutate(random_, data, contents) or b"\0"
        path.write_bytes(data)
        tally.mutants += 1
        begun = time.process_time()
        try:
            # Half of them without checksums, which would stop most before anything is parsed.
            with reading(checksum=random_.random() < 0.5):
                check(path)
            tally.values += 1
        except BncliError as error:
            tally.refused[type(error).__name__] += 1
            if "\n" in str(error) or not str(error).isprintable():
                tally.failures.append((number, f"an unprintable sentence: {str(error)!r}"))
        except Exception as error:  # noqa: BLE001 (what it looks for)
            tally.failures.append((number, repr(error)))
            if keep is not None:
                (keep / f"fuzz-{seed}-{number}").write_bytes(data)
        took = time.process_time() - begun
        tally.slowest = max(tally.slowest, took)
        if took > SLOW:
            tally.failures.append((number, f"took {took:.1f} s"))
    tally.grown = memory.grown(before)
    return tally


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--seeds", action="store_true", help="write the honest files instead")
    args = parser.parse_args()
    if args.seeds:
        sys.stdout.buffer.write(pickle.dumps(seeds()))
        return 0
    # A mutant that asks for the whole machine gets a MemoryError, which is a failure here.
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        tally = run(args.mutants, args.seed, Path(directory), args.keep)
    summary = (
        f"{tally.mutants} mutants in {time.perf_counter() - begun:.0f} s: {tally.values} opened,"
        f" {dict(tally.refused)} refused, {len(tally.failures)} failures; slowest"
        f" {tally.slowest:.2f} s, memory grew by {tally.grown // 1000} MB"
    )
    lines = [
        summary,
        *(f"  mutant {number}: {what}" for number, what in tally.failures[:20]),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if tally.failures or tally.grown > LARGE else 0


if __name__ == "__main__":
    sys.exit(main())
