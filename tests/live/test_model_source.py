"""The model that the user names: a class, a function or an instance, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bncli.errors import BncliError, FileError, MissingBackendError, ModelError, UsageError
from bncli.live import model_source
from bncli.live.model_source import load_model
from tests.live.code import NET


def refusal(spec: str, error: type[BncliError] = ModelError, **arguments: object) -> str:
    """The sentence for a MODEL."""
    with pytest.raises(error) as caught:
        load_model(spec, arguments)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_a_class_a_function_and_an_instance(code):
    code("net.py", NET + """
    def make(classes=2, *, width=4):
        return Net(classes, width)

    net = Net()

    class Models:
        Inner = Net

    def anything(**options):
        return Net(**options)
    """)  # fmt: skip
    for name, arguments in (
        ("net.py:Net", {"classes": 5, "width": 8}),
        ("net:make", {"classes": 5, "width": 8}),
        ("net.py:Models.Inner", {"classes": 5, "width": 8}),
        ("net.py:anything", {"classes": 5, "width": 8}),
    ):
        model = load_model(name, arguments)
        assert type(model).__name__ == "Net"
        assert (model.head.out_channels, model.bn.num_features) == (5, 8)
    assert load_model("net.py:net", {}) is load_model("net:net", {})
    assert refusal("net.py:net", UsageError, classes=3) == (
        "--arg classes: net.py:net is a model that is built already; leave --arg out, or name a "
        "class or a function."
    )


def test_a_model_of_an_installed_package():
    model = load_model("torch.nn:Linear", {"in_features": 2, "out_features": 3})
    assert isinstance(model, nn.Linear)


def test_arguments_that_are_missing_or_unknown(code):
    code("net.py", NET + """
    def make(depth, width, /, classes, *rest, **options): ...
    class One(nn.Module):
        def __init__(self, encoder): ...
    def none(): ...
    """)  # fmt: skip
    assert refusal("net.py:make", UsageError) == (
        "net.py:make needs depth, width, classes; give each with --arg, such as --arg depth=VALUE."
    )
    assert refusal("net.py:One", UsageError) == (
        "net.py:One needs encoder; give it with --arg, such as --arg encoder=VALUE."
    )
    assert refusal("net.py:Net", UsageError, class_=3) == (
        "--arg class_: net.py:Net has no argument of that name; did you mean classes?"
    )
    assert refusal("net.py:Net", UsageError, zzz=3) == (
        "--arg zzz: net.py:Net has no argument of that name; it takes classes, width."
    )
    assert refusal("net.py:none", UsageError, zzz=3) == (
        "--arg zzz: net.py:none has no argument of that name; it takes none."
    )


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("thing = 3", "an int"),
        ("import torch; thing = torch.ones(2)", "a torch.Tensor"),
        ("thing = {}", "a dict"),
        ("thing = None", "None"),
        ("thing = (i for i in ())", "a generator"),
        ("import os as thing", "a module"),
    ],
)
def test_what_is_no_model(code, text, kind):
    code("things.py", text)
    assert refusal("things.py:thing") == (
        f"things.py:thing: it is {kind}, not a model; name a class, a function that gives a model, "
        "or a model (torch.nn.Module)."
    )


def test_what_gives_no_model(code):
    code("makers.py", "def nothing(): pass\nclass Config: pass\n")
    assert refusal("makers.py:nothing") == (
        "makers.py:nothing: it gives None, not a model (torch.nn.Module)."
    )
    assert refusal("makers.py:Config") == (
        "makers.py:Config: it gives a makers.Config, not a model (torch.nn.Module)."
    )


def test_a_constructor_that_raises(code):
    code("bad.py", NET + """
    class Bad(Net):
        def __init__(self, depth=3):
            super().__init__()
            if depth == 3:
                raise ValueError("depth must be even")
            if depth == 5:
                raise SystemExit
            if depth == 7:
                raise KeyboardInterrupt
            self.bn = nn.BatchNorm2d(-1)
    """)  # fmt: skip
    lines = Path("bad.py").read_text(encoding="utf-8").splitlines()
    line = 1 + next(at for at, each in enumerate(lines) if each.strip() == "if depth == 3:")
    assert refusal("bad.py:Bad") == (
        f"bad.py:{line + 1}: building bad.py:Bad raised ValueError: depth must be even."
    )
    assert refusal("bad.py:Bad", depth=4).startswith(
        f"bad.py:{line + 6}: building bad.py:Bad raised RuntimeError: "
    )
    assert refusal("bad.py:Bad", depth=5) == (
        f"bad.py:{line + 3}: building bad.py:Bad ended the process (SystemExit)."
    )
    with pytest.raises(KeyboardInterrupt):
        load_model("bad.py:Bad", {"depth": 7})


# ------------------------------------------------------------------ other files


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_torchscript_program(code):
    code("net.py", NET)
    net = load_model("net.py:Net", {})
    torch.jit.trace(net.eval(), torch.ones(1, 3, 8, 8)).save("net.pt")
    assert refusal("net.pt") == (
        "net.pt: a TorchScript program takes no hooks, so its layers cannot be watched; name the "
        "class that it was made from, and give this file with --checkpoint."
    )
    code("scripted.py", "import torch\ndef load(): return torch.jit.load('net.pt')\n")
    assert refusal("scripted.py:load") == (
        "scripted.py:load: a TorchScript program takes no hooks, so its layers cannot be watched; "
        "name the class that it was made from."
    )


def test_a_checkpoint_as_model(save):
    path = save("net.pth", nn.BatchNorm2d(3).state_dict())
    for spec in (path, f"{path}::model"):
        assert refusal(spec, UsageError) == (
            "net.pth holds tensors, and MODEL is code: name the class, such as seg.py:UNet, and "
            "add --checkpoint net.pth."
        )
    assert refusal("nt.pth", FileError) == "nt.pth: there is no such file; did you mean net.pth?"


def test_what_is_no_name_of_code(code):
    Path("notes.txt").write_text("a model", encoding="utf-8")
    assert refusal("notes.txt", UsageError) == (
        "notes.txt is not Python code; MODEL is package.module:name or file.py:name."
    )
    form = "write package.module:name or file.py:name, such as"
    assert refusal("UNet", UsageError) == f"MODEL 'UNet': {form} seg.py:UNet."
    code("nets/seg.py", "")
    assert (
        refusal("nets/seg:UNet", UsageError) == f"MODEL 'nets/seg:UNet': {form} nets/seg.py:UNet."
    )
    assert refusal("", UsageError) == f"MODEL '': {form} seg.py:UNet."


def test_without_torch(monkeypatch):
    def missing():
        raise MissingBackendError("PyTorch is not installed here.")

    monkeypatch.setattr(model_source, "library", missing)
    assert refusal("net.py:Net", MissingBackendError) == "PyTorch is not installed here."


# ------------------------------------------------------------------ models of many kinds


def test_a_model_without_values(code):
    code(
        "meta.py",
        "import torch\ndef net():\n    with torch.device('meta'): return torch.nn.Linear(2, 2)\n",
    )
    assert refusal("meta.py:net") == (
        "meta.py:net: its tensors are on the meta device and have no values; build it on the CPU."
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, in torch.compile
def test_a_compiled_model_is_taken_as_it_was(code):
    code("compiled.py", NET + """
    net = Net()
    fast = torch.compile(net)
    """)  # fmt: skip
    assert load_model("compiled.py:fast", {}) is load_model("compiled.py:net", {})


def test_a_model_that_prints_says_it_on_standard_error(code, capsys):
    code("loud.py", f"""{NET}
    print("importing")

    def make():
        print("building")
        return Net()
    """)  # fmt: skip
    load_model("loud.py:make", {})
    assert capsys.readouterr() == ("", "importing\nbuilding\n")
