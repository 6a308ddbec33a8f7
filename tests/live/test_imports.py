"""What the user names in code: files and modules imported once, names found, errors with places."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest

from bncli.errors import FileError, ModelError, UsageError
from bncli.files.reading import reading
from bncli.files.save import refuse_overwriting
from bncli.live.imports import CodeName, code_file, code_name, find, find_function, kind_of


def found(spec: str, kind: str = "model"):
    """What a spec means."""
    name = code_name(spec)
    assert name is not None
    return find(name, kind)


def refusal(spec: str, error: type[Exception] = ModelError, kind: str = "model") -> str:
    """The sentence for a spec."""
    with pytest.raises(error) as caught:
        found(spec, kind)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    ("spec", "where", "name"),
    [
        ("seg.py:UNet", "seg.py", "UNet"),
        ("seg.py::UNet", "seg.py", "UNet"),
        ("seg.py", "seg.py", ""),
        ("seg.py:", "seg.py", ""),
        ("/a b/seg.py:Models.UNet", "/a b/seg.py", "Models.UNet"),
        ("C:\\nets\\seg.py:UNet", "C:\\nets\\seg.py", "UNet"),
        ("package.module:name", "package.module", "name"),
        ("módulo:réseau", "módulo", "réseau"),
    ],
)
def test_names_in_code(folder, spec, where, name):
    assert code_name(spec) == CodeName(where, name)


@pytest.mark.parametrize(
    "spec",
    ["x.npy", "net.pth::model_ema", "batches/*.pt", "run:1*.npy", "a:1", "seg.py:2", ":x", "-", ""],
)
def test_names_of_files(folder, spec):
    assert code_name(spec) is None


def test_a_file_that_is_called_like_code_is_a_file(folder):
    Path("a:b").touch()
    assert code_name("a:b") is None


def test_a_file_and_a_module_are_one_and_run_once(code):
    code("once_net.py", "runs = [1]\nclass Net: pass\nclass Models:\n    class Inner: pass\n")
    first = found("once_net.py:Net")
    assert found("once_net:Net") is first
    assert found(str(Path("once_net.py").resolve()) + ":Net") is first
    assert found("once_net.py:Models.Inner").__qualname__ == "Models.Inner"
    assert first.__module__ == "once_net"
    assert pickle.loads(pickle.dumps(first())).__class__ is first


def test_imports_from_the_current_folder_and_the_files_own(code):
    code("at_root.py", "here = 'root'\n")
    code("inner/beside.py", "there = 'inner'\n")
    code("inner/both.py", "from at_root import here\nfrom beside import there\n")
    path = list(sys.path)
    assert (found("inner/both.py:here"), found("inner/both.py:there")) == ("root", "inner")
    assert sys.path == path
    code("pack/__init__.py", "")
    code("pack/part.py", "from . import other\nname = other.name\n")
    code("pack/other.py", "name = 'in a package'\n")
    assert found("pack.part:name") == "in a package"


def test_a_file_does_not_take_the_place_of_a_module(code):
    import json
    import random

    code("random.py", "import json\nclass Net: pass\n")
    code("trace.py", "class Net: pass\n")  # of the standard library, perhaps not imported yet
    code("two-words.py", "class Net: pass\n")
    before = sys.modules.get("trace")
    for name in ("random.py", "trace.py", "two-words.py"):
        net = found(f"{name}:Net")
        assert found(f"{name}:Net") is net
    assert sys.modules["random"] is random
    assert sys.modules["json"] is json
    assert sys.modules.get("trace") is before
    code("later/random.py", "class Net: late = True\n")
    assert found("later/random.py:Net").late


def test_a_module_finds_its_arguments_as_a_program(code):
    code("program.py", "import sys, argparse\nargs = argparse.ArgumentParser().parse_args()\n")
    assert vars(found("program.py:args")) == {}


def test_a_file_that_was_imported_is_not_overwritten(code):
    code("net.py", "class Net: pass\n")
    with reading():
        found("net.py:Net")
        with pytest.raises(UsageError, match=r"^--output net.py: this would overwrite an input"):
            refuse_overwriting("net.py", "--output")
    with reading():
        found("net:Net")
        with pytest.raises(UsageError, match=r"^--output net.py: this would overwrite an input"):
            refuse_overwriting("net.py", "--output")


# ------------------------------------------------------------------ what is not there


def test_a_name_that_is_not_there(code):
    code(
        "nets.py",
        "import os\nfrom pathlib import Path\nclass UNet:\n    depth = 3\nclass FCN: pass\n",
    )
    assert refusal("nets.py:UNt") == "nets.py: there is no 'UNt' in it; did you mean UNet?"
    assert refusal("nets.py:zzz") == "nets.py: there is no 'zzz' in it; it defines FCN, UNet."
    assert refusal("nets:UNet.dpth") == ("nets:UNet: there is no 'dpth' in it; did you mean depth?")
    code("empty.py", "")
    assert refusal("empty.py:Net") == (
        "empty.py: there is no 'Net' in it, and nothing that could be the model."
    )


def test_no_name(code):
    code("nets.py", "raise OSError\ndef data(): pass\nclass UNet: pass\n")  # is not even run
    assert refusal("nets.py", UsageError) == (
        "nets.py: name the model in it, such as nets.py:UNet; it defines UNet, data."
    )
    assert refusal("nets.py", UsageError, "data") == (
        "nets.py: name the data in it, such as nets.py:data; it defines data, UNet."
    )
    code("empty.py", "")
    assert refusal("empty.py:", UsageError) == (
        "empty.py: name the model in it, such as empty.py:NAME."
    )


def test_a_file_or_a_module_that_is_not_there(code):
    code("segment.py", "")
    Path("folder.py").mkdir()
    assert refusal("segmnt.py:UNet", FileError) == (
        "segmnt.py: there is no such file; did you mean segment.py?"
    )
    assert refusal("folder.py:UNet", FileError) == "folder.py: it is not a file."
    assert refusal("segmnt:UNet") == (
        "segmnt:UNet: there is no module 'segmnt', neither in the current folder nor installed; "
        "did you mean segment.py:UNet?"
    )
    assert refusal("zzz.inner:UNet") == (
        "zzz.inner:UNet: there is no module 'zzz', neither in the current folder nor installed; "
        "write package.module:name, or file.py:name for a file."
    )
    assert "there is no module 'json.nothing'" in refusal("json.nothing:UNet")


# ------------------------------------------------------------------ what raises


RAISING = {
    "import nothing_at_all": "1: * raised ModuleNotFoundError: No module named 'nothing_at_all'.",
    "\n\nraise ValueError('a\\nb')": "3: * raised ValueError: a b.",
    "x = 1\nclass": "2: * raised SyntaxError: invalid syntax.",
    "import sys\nsys.exit(2)": "2: * ended the process (SystemExit: 2).",
    "from . import other": "1: * raised ImportError: attempted relative import with no known "
    "parent package. Name a file that is part of a package as package.module:name.",
    "import sys\ndel sys.stdout\nsys.stderr = None\nprint(1)": "4: * raised RuntimeError: lost "
    "sys.stdout.",
    "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})": "1: * raised Odd.",
    "raise ValueError('\\x1b[2J\\u202e')": r"1: * raised ValueError: \x1b[2J\u202e.",
    "class Stop(BaseException): pass\nraise Stop('x')": "2: * raised Stop: x.",
}
"""What a file holds, and how its sentence goes on after the file, with what was done for *."""


@pytest.mark.parametrize(("text", "said"), RAISING.items(), ids=range(len(RAISING)))
def test_an_import_that_raises(code, text, said):
    streams = sys.stdout, sys.stderr
    code("bad.py", text)
    sentence = refusal("bad.py:Net")
    assert sentence == f"bad.py:{said.replace('*', 'importing bad.py')}"
    assert (sys.stdout, sys.stderr) == streams
    assert "bad" not in sys.modules
    assert refusal("bad.py:Net") == sentence  # and so again


@pytest.mark.parametrize(
    ("text", "said"),
    [("def f(): f()\nf()", "bad.py:1: importing bad.py raised RecursionError: maximum"),
     ("x = '\0'", "importing bad.py raised ")],
    ids=["recursion", "null"],
)  # fmt: skip
def test_an_import_that_raises_as_this_python_says_it(code, text, said):
    code("bad.py", text)
    assert (
        refusal("bad.py:Net").removeprefix("bad.py:1: ").startswith(said.removeprefix("bad.py:1: "))
    )


def test_an_error_in_another_file_of_the_users(code):
    code("outer.py", "import broken_inner\n")
    code("broken_inner.py", "\n\n1 / 0\n")
    assert refusal("outer.py:Net") == (
        "broken_inner.py:3: importing outer.py raised ZeroDivisionError: division by zero."
    )
    assert refusal("outer:Net").startswith("broken_inner.py:3: importing outer raised")


def test_a_file_that_is_not_utf_8(code):
    Path("latin.py").write_bytes(b"name = '\xe9'\n")
    assert "importing latin.py raised SyntaxError" in refusal("latin.py:Net")


def test_an_interrupt_passes(code):
    code("slow.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        found("slow.py:Net")


def test_a_name_whose_look_up_raises(code):
    code("lazy.py", "def __getattr__(name):\n    raise RuntimeError(name)\n")
    assert refusal("lazy.py:Net") == "lazy.py:2: looking up lazy.py:Net raised RuntimeError: Net."


# ------------------------------------------------------------------ functions


def test_a_function(code):
    code("metrics.py", "def loss(output, batch): return 1.0\nnumber = 3\n")
    assert find_function("metrics.py:loss", "metric")(None, None) == 1.0
    with pytest.raises(ModelError, match=r"^metrics.py:number: it is an int, not a function\.$"):
        find_function("metrics.py:number", "metric")
    with pytest.raises(UsageError, match=r"^loss: write the metric as package.module:name or file"):
        find_function("loss", "metric")


def test_kinds_of_values():
    assert [kind_of(value) for value in (None, 3, {}, Path(), sys)] == [
        "None", "an int", "a dict", f"a {type(Path()).__module__}.{type(Path()).__name__}",
        "a module",
    ]  # fmt: skip


def test_the_file_of_code_is_found_without_running_it(code):
    stops = "raise RuntimeError('imported')\n"
    code("net.py", stops)
    code("pkg/__init__.py", stops)
    code("pkg/sub/mod.py", stops)
    for spec, file in (
        ("net.py:Net", "net.py"),
        ("gone.py:Net", None),
        ("net:Net", "net.py"),
        ("pkg:Net", "pkg/__init__.py"),
        ("pkg.sub.mod:Net", "pkg/sub/mod.py"),
        ("pkg.sub:Net", None),  # a folder without a file of its own
        ("pkg.gone:Net", None),
        ("net.inside:Net", None),
        ("math:sqrt", None),
        ("json.decoder:JSONDecoder", json.decoder.__file__),
    ):
        found = code_file(code_name(spec))
        assert (found is None) is (file is None), spec
        assert file is None or found.samefile(file), spec
