"""Files that bncli does not read: what each really is, and what to do about it.

The last loader in the list: it takes every file, and always raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.loaders.interface import Source
from bncli.loaders.kinds import AS_FLAT_NPZ, AS_NPZ, FOLDED, KINDS, LOAD_IT
from bncli.loaders.names import listed, quoted
from bncli.loaders.pickle_records import Dict, Global, Record
from bncli.loaders.probes import SEARCHED, is_pickle
from bncli.loaders.registry import CHECKPOINTS, READ
from bncli.loaders.torch_values import class_of
from bncli.loaders.typed import head_text
from bncli.loaders.whole import folders_in

LIKELY = (".index.json", *CHECKPOINTS)
"""Ends of file names that a directory's sentence suggests."""
TEXTS = {
    ".py": "it is Python code, which holds no weights; name a checkpoint, or watch a model of it"
    " run with bncli diagnose FILE.py:NAME.",
    "-symbol.json": "it is the graph of an MXNet model; name the .params file beside it.",
}
"""Text that arrives in a checkpoint's place, by the ends of its name, and the sentence for it."""
MOST_LOOKED_AT = 10_000
"""How many objects of a pickle are looked at for what it would call."""
RUNNERS = {
    "os", "posix", "nt", "subprocess", "sys", "runpy", "pty", "commands", "importlib", "ctypes",
    "shutil", "socket", "webbrowser", "pickle", "marshal", "timeit", "code", "bdb", "pip",
}  # fmt: skip
"""Modules whose functions no weights need, and which can run or remove whatever they are told."""
RUNNING_BUILTINS = {"eval", "exec", "compile", "__import__", "open", "input", "breakpoint"}


def detect(source: Source) -> bool:
    """Whether the file can be refused: any can."""
    del source
    return True


def open_tensors(source: Source) -> NoReturn:
    """Raise the sentence for what the file is."""
    if is_pickle(source.head):
        _refuse_pickle(source)
    for kind in KINDS:
        if kind.looks(source):
            raise kind.refusal(source)
    if text := " ".join(head_text(source.head).split()):
        for end, sentence in TEXTS.items():
            if source.path.name.endswith(end):
                raise UnsupportedFileError(source.path, sentence)
        raise UnsupportedFileError(
            source.path,
            f"it is text that begins with {quoted(text, 120)!r}; if this is a server's error"
            " page, download again; otherwise name a file that holds tensors.",
        )
    first = " ".join(f"{byte:02x}" for byte in source.head[:8])
    raise UnsupportedFileError(
        source.path, f"its format is not known (it begins with {first}); bncli reads {READ}."
    )


def refuse_part(path: Path) -> NoReturn:
    """Raise for a rank's file of a checkpoint of torch.distributed, which is nothing alone."""
    raise UnsupportedFileError(
        path,
        "it is a part of a torch.distributed checkpoint, whose index .metadata is missing beside"
        " it; copy the whole folder, and name that.",
    )


def refuse_directory(path: Path) -> NoReturn:
    """Raise the sentence for a directory: what it is, or which file in it to name."""
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise FileError(
            path, f"it is a directory that cannot be read ({(error.strerror or '').lower()})."
        ) from None
    if any(name.endswith(".distcp") for name in names):
        raise UnsupportedFileError(
            path,
            "it has parts of a torch.distributed checkpoint, whose index .metadata is missing; copy"
            " that file into it, too.",
        )
    if {"_CHECKPOINT_METADATA", "manifest.ocdbt", "_METADATA"} & set(names):
        raise UnsupportedFileError(
            path, f"it is an Orbax checkpoint; restore it with Orbax, and {AS_FLAT_NPZ}"
        )
    if {".zarray", ".zgroup", "zarr.json"} & set(names):
        raise UnsupportedFileError(path, f"it is a Zarr store; {LOAD_IT}")
    if "Manifest.json" in names and path.name.endswith(".mlpackage"):
        raise UnsupportedFileError(path, f"it is a Core ML package, {FOLDED}")
    if "data.pkl" in names and "version" in names:
        raise UnsupportedFileError(
            path,
            "it is an unpacked PyTorch archive; zip it again (zip -0 -r model.pt"
            f" {quoted(path.name) or 'DIRECTORY'}) and name that.",
        )
    likely = [name for name in names if name.endswith(LIKELY)]
    likely.sort(key=lambda name: not name.endswith(".index.json"))
    folders = folders_in(path, names)
    if not likely and len(folders) < 2:
        raise UnsupportedFileError(
            path, "it is a directory without a checkpoint in it; name a file, or a folder inside."
        )
    refuse_several(path, [*likely, *folders])


def refuse_several(path: Path, names: Sequence[str]) -> NoReturn:
    """Raise for a directory in which there are models of these names."""
    sentence = f"it is a directory with several models; name one of them ({listed(names)})."
    patterns = _patterns(path, names)
    if patterns:
        sentence += f" A command that takes several files takes all of them as {patterns}."
    raise UnsupportedFileError(path, sentence)


def _patterns(path: Path, names: Sequence[str]) -> str:
    """What fits all models of these names in a directory; "" where a pattern does not say it."""
    ends = sorted({Path(name).suffix for name in names})
    plain = all(name.endswith(CHECKPOINTS) and not name.startswith(".") for name in names)
    folder = str(path)
    if not plain or len(ends) > 2 or set("*?['\"") & set(folder):
        return ""
    return " ".join(f"'{quoted(str(path / f'*{end}'), 200)}'" for end in ends)


def _refuse_pickle(source: Source) -> NoReturn:
    """Raise the sentence for a pickle that torch.save did not write."""
    try:
        pickle = source.pickle
    except CorruptFileError:
        # The bytes of arrays stand between the opcodes.
        if b"joblib.numpy_pickle" not in source.head_of(SEARCHED):
            raise
        raise UnsupportedFileError(
            source.path,
            f"it was written by joblib.dump; load it where it was made, and {AS_NPZ}.",
        ) from None
    called = list(_called(pickle.value))
    for cls in called:
        if cls.module.split(".")[0] in RUNNERS or (
            cls.module in {"builtins", "__builtin__"} and cls.name in RUNNING_BUILTINS
        ):
            raise UnsupportedFileError(
                source.path,
                f"it is a Python pickle that calls {quoted(f'{cls.module}.{cls.name}')} when it is"
                " loaded, which no weights need; nothing of it was run here, and"
                " it is safer to load it nowhere.",
            )
    if any(cls.module == "torch.distributed.checkpoint.metadata" for cls in called):
        raise UnsupportedFileError(
            source.path,
            "it is the index of a torch.distributed checkpoint; call it .metadata again, put it"
            " beside its *.distcp files, and name their folder.",
        )
    root = class_of(pickle.value) if isinstance(pickle.value, Record) else None
    what = f" of {quoted(f'{root.module}.{root.name}')}" if root is not None else ""
    raise UnsupportedFileError(
        source.path,
        f"it is a Python pickle{what}, not written by torch.save; load it where it was made"
        " and save its tensors with torch.save or np.savez.",
    )


def _called(value: object) -> Iterator[Global]:
    """What the objects of a pickle are made by, of the first of them."""
    waiting = [value]
    seen: set[int] = set()
    while waiting and len(seen) < MOST_LOOKED_AT:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Record):
            cls = class_of(node)
            if cls is not None:
                yield cls
            waiting += [*node.args, *node.states, *node.elements]
        if isinstance(node, Record | Dict):
            waiting += [part for pair in node.pairs for part in pair]
        elif isinstance(node, list | tuple):
            waiting += node
