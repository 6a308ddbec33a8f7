"""What holds for every loader, checked over the registry itself."""

import ast
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bncli.errors import BncliError
from bncli.loaders import open_file, registry
from bncli.loaders.interface import open_source
from bncli.loaders.registry import LOADERS, loader_of

from .files import assert_same, samples, write
from .pickles import dictionary, npy, pid, safetensors, tensor, torch_legacy, whole

FOLDER = Path(registry.__file__).parent
SAMPLES = samples()
FILES = {name: sample for name, sample in SAMPLES.items() if sample.main}
"""All but those that are folders."""
CONTAINERS = {sample.container for sample in SAMPLES.values()} | {""}


def functions(tree):
    """The functions of a module by name, each with the names of its arguments."""
    return {
        node.name: [each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)]
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }


def forgotten(rows, folder, guides, containers):
    """What somebody who adds a loader has forgotten, in words; no module is imported for it."""
    paths = {path.stem: path for path in folder.glob("*.py")}
    paths |= {path.parent.name: path for path in folder.glob("*/__init__.py")}
    trees = {name: ast.parse(path.read_text("utf-8")) for name, path in paths.items()}
    names = [row.name for row in rows]
    for name in sorted(trees.keys() - {*names}):
        made = functions(trees[name])
        if "detect" in made or ("open_tensors" in made and name != "interface"):
            yield f"bncli/loaders/{name}.py is a loader, and registry.LOADERS has no row for it"
    if names[-1] != "refused":
        yield "refused knows every file, so its row must be the last of registry.LOADERS"
    for row in rows:
        if row.name not in trees:
            yield f"registry.LOADERS has the row {row.name}, and bncli/loaders has no such file"
            continue
        made = functions(trees[row.name])
        for function in ("detect", "open_tensors"):
            if function not in made:
                yield f"bncli/loaders/{row.name}.py has no function {function}(source)"
            elif made[function] != ["source"]:
                yield f"{row.name}.{function} does not take just one argument, source"
        if not ast.get_docstring(trees[row.name]):
            yield f"bncli/loaders/{row.name}.py does not say in a docstring what it opens"
        if row.called not in guides:
            yield f"no guide speaks of {row.called}, which {row.name} reads"
        if row.container not in containers:
            yield f"no sample in tests/loaders/files.py has {row.name}'s container {row.container}"


def test_nothing_of_a_loader_is_forgotten(repository):
    guides = [repository / "examples" / job / "README.md" for job in ("checkpoint", "statistics")]
    said = " ".join(word for guide in guides for word in guide.read_text("utf-8").split())
    problems = list(forgotten(LOADERS, FOLDER, said, CONTAINERS))
    assert not problems, "\n".join(problems)


def test_what_is_forgotten_is_named(tmp_path):
    whole = '"""What it opens."""\ndef detect(source): 0\ndef open_tensors(source): 0\n'
    texts = {"good": whole, "refused": whole, "stray": whole, "registry": "def loader_of(a): 0"}
    texts |= {"interface": "def open_tensors(source): 0"}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    row = registry.Row
    rows = [row("good", "good", "Good"), row("stray", "good", "Good"), row("refused", "", "")]

    def said(*rows):
        return list(forgotten(rows, tmp_path, "Good files", {"good", ""}))

    assert said(*rows) == []
    assert said(rows[0], rows[2]) == [
        "bncli/loaders/stray.py is a loader, and registry.LOADERS has no row for it"
    ]
    assert said(row("hdf5", "hdf5", "HDF5"), *rows) == [
        "registry.LOADERS has the row hdf5, and bncli/loaders has no such file"
    ]
    assert said(*rows[::-1]) == [
        "refused knows every file, so its row must be the last of registry.LOADERS"
    ]
    (tmp_path / "odd.py").write_text("def detect(path, source): 0")
    assert said(row("odd", "odd", "no such word"), *rows) == [
        "odd.detect does not take just one argument, source",
        "bncli/loaders/odd.py has no function open_tensors(source)",
        "bncli/loaders/odd.py does not say in a docstring what it opens",
        "no guide speaks of no such word, which odd reads",
        "no sample in tests/loaders/files.py has odd's container odd",
    ]


@pytest.mark.parametrize("name", SAMPLES)
def test_every_tensor_is_read_bit_for_bit(name, tmp_path):
    sample = SAMPLES[name]
    file = open_file(write(tmp_path, sample))
    assert file.container == sample.container
    assert_same(file.tensors, sample.expected)
    if sample.container != "torchscript":  # its archives also keep what state_dict() leaves out
        read = {name for name, ref in file.tensors.items() if not ref.unreadable}
        assert read == set(sample.expected)


def test_every_loader_opens_a_sample(tmp_path):
    used = set()
    for number, sample in enumerate(FILES.values()):
        (tmp_path / str(number)).mkdir()
        with open_source(write(tmp_path / str(number), sample)) as source:
            used.add(loader_of(source).__name__.rpartition(".")[2])
    unused = {row.name for row in LOADERS} - {"refused"} - used
    assert not unused, f"tests/loaders/files.py has no sample that {', '.join(unused)} opens"
    assert "refused" not in used, "a sample of tests/loaders/files.py is a file that is not read"


@pytest.mark.parametrize("name", FILES)
def test_a_loader_that_is_not_asked_would_not_have_known_the_file(name, tmp_path):
    """The first bytes in the registry leave out no file that a loader knows."""
    with open_source(write(tmp_path, SAMPLES[name])) as source:
        asked = loader_of(source)
        every = loader_of(source, [replace(row, begins=(b"",)) for row in LOADERS])
    assert asked is every


@pytest.mark.parametrize("name", [key for key in FILES if not FILES[key].parts_by_name])
@pytest.mark.parametrize("suffix", [".state", ".pkl", ".pth.tar", ".npy", ".safetensors", ""])
def test_the_content_decides_and_never_the_suffix(name, suffix, tmp_path):
    sample = SAMPLES[name]
    path = write(tmp_path, sample)
    other = path.rename(tmp_path / f"file{suffix}")
    assert open_file(other).container == sample.container


def read_all(path):
    for ref in open_file(path).tensors.values():
        ref.read()


@pytest.mark.parametrize("number", [32, pytest.param(400, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("name", sorted(FILES.keys() - {"csv"}))
def test_a_file_cut_anywhere_is_refused_in_one_sentence(name, number, tmp_path):
    """Everywhere at the ends, where most formats have their tables, and here and there between.

    A table in text that ends early is a shorter table, or a smaller number.
    """
    sample = SAMPLES[name]
    data = sample.files[sample.main]
    path = write(tmp_path, sample)
    between = range(0, len(data), max(1, len(data) // number))
    for length in sorted({*range(20), *between, *range(len(data) - 20, len(data))}):
        path.write_bytes(data[:length])
        with pytest.raises(BncliError) as caught:
            read_all(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def run(code, *args):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        check=True, capture_output=True, text=True, timeout=1800,
    ).stdout.strip()  # fmt: skip


OPEN_AND_LIST_IMPORTS = """
import sys
from bncli.loaders import open_file
for path in sys.argv[1:]:
    open_file(path)
print(sorted({"torch", "numpy", "safetensors", "rich", "pickle", "zipfile"} & set(sys.modules)))
"""


def test_opening_imports_neither_torch_nor_numpy(tmp_path):
    paths = []
    by_h5py = {"hdf5", "keras", "keras-h5"}  # which imports NumPy
    lean = [sample for sample in FILES.values() if sample.container not in by_h5py]
    for number, sample in enumerate(lean):
        (tmp_path / str(number)).mkdir()
        paths.append(write(tmp_path / str(number), sample))
    assert run(OPEN_AND_LIST_IMPORTS, *paths) == "[]"
    # The check itself can fail.
    assert "numpy" in run("import numpy\n" + OPEN_AND_LIST_IMPORTS, *paths)


LIST_LOADERS = """
import sys
from bncli.loaders import open_file
open_file(sys.argv[1])
print(*sorted(m[14:] for m in sys.modules if m.startswith("bncli.loaders.")))
"""


@pytest.mark.parametrize(
    ("name", "loaders"),
    [
        ("npy", {"npy"}),
        ("npz", {"npz", "npy", "torchscript", "torch_zip", "keras"}),
        ("torch-zip", {"torchscript", "torch_zip", "npy"}),
        ("safetensors", {"safetensors", "npy"}),
    ],
)
def test_what_a_file_does_not_need_is_not_imported(name, loaders, tmp_path):
    path = write(tmp_path, SAMPLES[name])
    every = {row.name for row in LOADERS} | {"torch_tree", "unpickler", "whole", "kinds", "probes"}
    loaders |= {"torch_tree", "unpickler"} if name == "torch-zip" else set()
    assert set(run(LIST_LOADERS, path).split()) & every == loaders


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in Linux's units")
@pytest.mark.parametrize("kind", ["torch-zip", "torch-legacy", "safetensors", "npy"])
def test_time_and_memory_do_not_grow_with_the_file(kind, tmp_path):
    """A file of 1 GB, sparse on the disk, opens in the memory of a small one."""
    count = 1 << 28
    path = tmp_path / "big"
    both = dictionary(big=tensor((count,), reference=pid("1", count)), small=tensor())
    if kind == "npy":
        data = npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count},)}}")
    elif kind == "safetensors":
        header = {
            "big": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]},
            "small": {"dtype": "F32", "shape": [4], "data_offsets": [4 * count, 4 * count + 16]},
        }
        data = safetensors(header, bytes(16))
    elif kind == "torch-legacy":
        data = torch_legacy(both, {"0": (4, bytes(16)), "1": (count, b"")})
    else:
        data = b""
        big_torch_zip(path, both, 4 * count)
    if data:
        path.write_bytes(data)
        os.truncate(path, len(data) + 4 * count)
    code = """
import sys, time
sys.path.insert(0, sys.argv[2])
import memory
import numpy
from bncli.loaders import open_file
begun, before = time.process_time(), memory.mark()
file = open_file(sys.argv[1])
ref = file.tensors.get("small") or file.tensors[""]
ref.stored((slice(4),)).sum()
print(memory.grown(before), time.process_time() - begun)
"""
    kilobytes, seconds = map(float, run(code, path, Path(__file__).parent).split())
    assert kilobytes < 4_000
    assert seconds < 0.5


def big_torch_zip(path, value, size):
    """An archive whose member a/data/1 is a hole of `size` bytes, written without its bytes."""
    entries, at = [], 0
    with path.open("wb") as file:
        pickle = whole(value)
        for name, data, length in (
            (b"a/data.pkl", pickle, len(pickle)),
            (b"a/data/0", bytes(16), 16),
            (b"a/data/1", b"", size),
        ):
            header = struct.pack(
                "<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, length, length, len(name), 0
            )
            file.seek(at)
            file.write(header + name + data)
            entries.append((name, length, at))
            at += len(header) + len(name) + length
        file.seek(at)
        table = b"".join(
            struct.pack(
                "<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, length, length,
                len(name), 0, 0, 0, 0, 0, offset,
            ) + name
            for name, length, offset in entries
        )  # fmt: skip
        end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 3, 3, len(table), at, 0)
        file.write(table + end)
