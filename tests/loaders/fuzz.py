"""A seeded mutator over small files of every container.

    python -m tests.loaders.fuzz --each 2000 --only onnx,keras --seed 1

Every sample of `tests.loaders.files` is a seed, whether it is one file, several, or a folder, and
so is what `seeds` adds. Of each, so many mutants are opened; every tensor in them is read, and
some get new values. What comes out must be values, bytes to replace inside of the file, or a
BncliError, without a warning, in little time and memory; anything else is reported with the
mutant's number, and its files are kept. A crash of a library in C or an endless loop ends the
process that tries the mutants: it is reported as well, and the next process goes on behind it. The
honest files come from another process, so that PyTorch's own memory does not hide what a mutant
takes.
"""

import argparse
import collections
import contextlib
import gzip
import json
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
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
HANGS = 60
"""Seconds after which a mutant is taken to be in an endless loop, however busy the machine."""
MOST_EDITED = 1000
"""Elements of a tensor that gets new values."""
LARGE = 300_000
"""Kilobytes that one mutant may take."""
WRAPS = {"gzip": gzip.compress}
"""What is done to a seed of this name after it has been changed, half of the time; else before."""


@dataclass
class Tally:
    """What came of the mutants of one seed."""

    mutants: int = 0
    values: int = 0
    refused: collections.Counter = field(default_factory=collections.Counter)
    slowest: float = 0.0
    grown: int = 0


def seeds():
    """The honest files to start from: what to open ("" for the folder), and the files by name."""
    import torch

    from .files import samples, saved, scripted
    from .pickles import call, dictionary, integer, name, tensor, text, torch_legacy, torch_zip, tup

    small = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    state = small.state_dict()
    legacy = saved(state, _use_new_zipfile_serialization=False)
    alone = {
        "small-zip": saved({"state_dict": state, "epoch": 3, "lr": [0.1, None]}),
        "small-module": saved(small),
        "small-legacy": legacy,
        "small-legacy-4": saved(state, _use_new_zipfile_serialization=False, pickle_protocol=4),
        "small-script": scripted(small),
        "plain-pickle": pickle.dumps({"a": [1, 2.5, "x", (1, 2), {3}], "b": b"x" * 50}),
        "by-hand": torch_zip(
            dictionary(
                a=tensor(),
                b=tup(tensor((2, 2), (2, 1)), text("x"), integer(7)),
                c=call(name("os", "getcwd"), text("y")),
            )
        ),
        "by-hand-legacy": torch_legacy(dictionary(a=tensor(), b=tensor((2,), (2,)))),
        "gzip": legacy,
    }
    found = {kind: (sample.main, sample.files) for kind, sample in samples().items()}
    return found | {kind: ("x", {"x": data}) for kind, data in alone.items()}


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
    """Open the file and read all that is in it. Raises what it finds."""
    file = open_file(path)
    check_edits(file)
    for ref in file.tensors.values():
        with contextlib.suppress(BncliError):
            values = ref.read()
            assert values.shape == ref.shape
            np.count_nonzero(values)  # every element is really there
    assert all(why.isprintable() for why in (*file.skipped.values(), file.without_layers))
    for module in file.modules.values():
        assert isinstance(module.class_name, str)
        assert all(isinstance(n, float | int | None) for n in (module.eps, module.momentum))
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


def mutant(seed, kind, number, files, others):
    """The changed files of one mutant: most often one of them has one change."""
    random_ = random.Random(f"{seed} {kind} {number}")
    changed = dict(files)
    name = random_.choice(sorted(files, key=lambda name: len(files[name])))
    wrap = WRAPS.get(kind, bytes)
    before = random_.random() < 0.5
    data = wrap(files[name]) if before else files[name]
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        data = mutate(random_, data, others) or b"\0"
    changed[name] = data if before else wrap(data)
    return changed, random_.random() < 0.5


def put(folder, files):
    """Make the folder hold these files and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def try_one(path, checksum, tally):
    """What is wrong with how bncli takes the files, in words; "" where nothing is."""
    wrong = ""
    before, begun = memory.mark(), time.process_time()
    try:
        # Half of them without checksums, which would stop most before anything is parsed.
        with reading(checksum=checksum), warnings.catch_warnings():
            warnings.simplefilter("error")
            check(path)
        tally.values += 1
    except BncliError as error:
        tally.refused[type(error).__name__] += 1
        if not str(error).isprintable():
            wrong = f"an unprintable sentence: {str(error)!r}"
    except Exception as error:  # noqa: BLE001 (what it looks for)
        wrong = repr(error)
    took, grown = time.process_time() - begun, memory.grown(before)
    tally.mutants += 1
    tally.slowest, tally.grown = max(tally.slowest, took), max(tally.grown, grown)
    if took > SLOW:
        wrong = wrong or f"took {took:.1f} s"
    if grown > LARGE:
        wrong = wrong or f"took {grown // 1000} MB"
    return wrong


def try_many(args):
    """Try mutants of one seed in this process, and say line by line in JSON what comes of each."""
    assert "torch" not in sys.modules
    # A mutant that asks for the whole machine gets a MemoryError, which is a failure here.
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    every = pickle.loads(args.files.read_bytes())
    main, files = every[args.only]
    others = [data for _, parts in every.values() for data in parts.values()]
    # A part of the file's own kind goes in as often as one of any other.
    others = [*files.values()] * (len(others) // len(files)) + others
    folder = args.files.parent / "mutant"
    tally = Tally()
    for number in range(args.first, args.each):
        changed, checksum = mutant(args.seed, args.only, number, files, [o for o in others if o])
        put(folder, changed)
        sys.stdout.write(f"{json.dumps(['begun', number])}\n")
        sys.stdout.flush()
        signal.alarm(HANGS)
        wrong = try_one(folder / main, checksum, tally)
        signal.alarm(0)
        if wrong:
            sys.stdout.write(f"{json.dumps(['wrong', number, wrong])}\n")
            shutil.copytree(folder, args.keep / f"{args.only}-{args.seed}-{number}")
    sys.stdout.write(f"{json.dumps(['tally', vars(tally)])}\n")
    return 0


def run(kind, args, files):
    """The tally of one seed's mutants, and the failures: one line each."""
    first, tally, failures = 0, Tally(), []
    while first < args.each:
        child = [
            sys.executable, "-m", __spec__.name, f"--files={files}", f"--only={kind}",
            f"--seed={args.seed}", f"--each={args.each}", f"--first={first}", f"--keep={args.keep}",
        ]  # fmt: skip
        done = subprocess.run(child, check=False, capture_output=True, text=True)
        said = [json.loads(line) for line in done.stdout.splitlines()]
        failures += [f"{kind} {line[1]}: {line[2]}" for line in said if line[0] == "wrong"]
        begun = [line[1] for line in said if line[0] == "begun"]
        counted = [line[1] for line in said if line[0] == "tally"]
        if counted:
            part = Tally(**counted[0])
            tally.values += part.values
            tally.refused.update(part.refused)
            tally.slowest, tally.grown = part.slowest, part.grown
        if done.stderr or not counted:
            last = begun[-1] if begun else first
            why = f"the process ended with {done.returncode}, {done.stderr[-500:]!r}"
            failures.append(f"{kind} {last}: {why}")
            kept = args.keep / f"{kind}-{args.seed}-{last}-ended"
            shutil.copytree(files.parent / "mutant", kept, dirs_exist_ok=True)
            tally.mutants += last + 1 - first
            first = last + 1
        if counted:
            tally.mutants += part.mutants
            break
    return tally, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=4000, help="mutants of each seed")
    parser.add_argument("--only", default="", help="begins of the names of seeds, by commas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for what fails")
    parser.add_argument("--seeds", action="store_true", help="write the honest files instead")
    parser.add_argument("--files", type=Path, help="try mutants of the files that --seeds wrote")
    parser.add_argument("--first", type=int, default=0, help="the number of the first mutant")
    args = parser.parse_args()
    if args.seeds:
        sys.stdout.buffer.write(pickle.dumps(seeds()))
        return 0
    if args.files:
        return try_many(args)
    args.keep = args.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
    wanted, bad = tuple(args.only.split(",")), []
    with tempfile.TemporaryDirectory() as directory:
        files = Path(directory) / "seeds"
        made = subprocess.run(
            [sys.executable, "-m", __spec__.name, "--seeds"], check=True, capture_output=True
        )
        files.write_bytes(made.stdout)
        for kind in sorted(pickle.loads(made.stdout)):
            if kind.startswith(wanted):
                tally, failures = run(kind, args, files)
                bad += failures
                sys.stdout.write(
                    f"{kind}: {tally.mutants} mutants, {tally.values} opened,"
                    f" {dict(tally.refused)} refused, {len(failures)} failures; slowest"
                    f" {tally.slowest:.2f} s, most memory {tally.grown // 1000} MB\n"
                )
                sys.stdout.flush()
    lines = [f"{len(bad)} failures", *bad[:40], *([f"kept in {args.keep}"] if bad else [])]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
