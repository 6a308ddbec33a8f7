"""The check of an environment without torch: it passes where torch is hidden, and finds faults."""

from __future__ import annotations

import json

from . import without_torch
from .loaders.files import samples, write

HIDDEN = """
import runpy, sys
sys.modules["torch"] = None
_, script, sys.prefix = sys.argv
runpy.run_path(script, run_name="__main__")
"""


BARE = """
import json, sys
for name in ("torch", "h5py", "msgpack", "onnx", "safetensors", "google.protobuf", "snappy"):
    sys.modules[name] = None
from bncli.errors import FileError
from bncli.loaders import open_file
said = {}
for name, path in json.loads(sys.argv[1]).items():
    try:
        tensors = open_file(path).tensors
        said[name] = [key for key, ref in tensors.items() if ref.read().shape == ref.shape]
    except FileError as error:
        said[name] = error.problem
print(json.dumps(said))
"""


def test_every_container_is_read_or_says_which_package_it_needs(run_process, tmp_path):
    every = samples()
    paths = {name: str(write(tmp_path / name, sample)) for name, sample in every.items()}
    code, stdout, stderr = run_process(json.dumps(paths), python=["-c", BARE])
    assert (code, stderr) == (0, "")
    said = json.loads(stdout)
    needing = {name: text for name, text in said.items() if isinstance(text, str)}
    for name in every.keys() - needing.keys():
        assert {*said[name]} >= {*every[name].expected}, name
    for name, text in needing.items():
        package = "msgpack" if every[name].container.startswith("flax") else "h5py"
        assert text.endswith(f"needs {package}; install it: pip install {package}."), text
        assert every[name].container.startswith(("flax", "keras", "hdf5"))


def test_bncli_works_where_torch_is_not_installed(run_process, tmp_path):
    code, stdout, stderr = run_process(without_torch.__file__, tmp_path, python=["-c", HIDDEN])
    assert (code, stderr) == (0, "")
    first, last = stdout.splitlines()
    assert first.endswith(" works without torch.")
    assert last.endswith(" MB.")


def test_where_torch_is_there_it_says_so():
    assert without_torch.faults() == ["torch can be imported here."]


def compared(against: str | None = None) -> None:
    """Stands for any command, all of which compare."""


def test_every_call_and_comparison_is_judged(monkeypatch):
    monkeypatch.setattr(without_torch.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(without_torch, "COMMANDS", (*without_torch.COMMANDS, "unheard_of"))
    monkeypatch.setattr(without_torch, "command", lambda name: compared)
    monkeypatch.setattr(without_torch, "call", lambda line: (4, "", "a bug"))
    found = without_torch.faults()
    assert found[0] == "unheard_of: add a call of it."
    assert len(found) == 1 + len(without_torch.RUNS) + 1 + len(without_torch.COMMANDS)


def test_a_folder_is_measured(tmp_path):
    (tmp_path / "inner").mkdir()
    before = without_torch.megabytes(str(tmp_path))
    (tmp_path / "inner" / "file").write_bytes(bytes(3_000_000))
    assert round(without_torch.megabytes(str(tmp_path)) - before, 3) == 3
