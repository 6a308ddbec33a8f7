"""An error of the user's in one sentence: its last line, its place, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bncli.live import told as module
from bncli.live.told import hint_for, last_line, place_of, told


def failed(error: BaseException, what: str = "the forward pass") -> str:
    """The sentence that an error becomes."""
    with pytest.raises(type(error)) as caught:
        raise error
    sentence = told(caught.value, what)
    assert sentence.isprintable()
    return sentence


def test_an_error_is_told_with_the_file_the_line_and_what_ran():
    sentence = failed(ValueError("channels must be even"))
    file, line, rest = sentence.split(":", 2)
    assert Path(file).name == "test_told.py"
    assert int(line) > 10
    assert rest == " the forward pass raised ValueError: channels must be even."


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError(""), "RuntimeError"),
        (RuntimeError("two\n\n  lines  \n"), "RuntimeError: two lines"),
        (RuntimeError("a\nb\nc\nd"), "RuntimeError: d"),
        (KeyError("image"), "KeyError: 'image'"),
        (SystemExit(), "SystemExit"),
        (SystemExit("bye"), "SystemExit: bye"),
        (ValueError("red \x1b[31m\u202e \r text"), r"ValueError: red \x1b[31m\u202e text"),
        (ValueError("\x1b[31mred\u202e"), r"ValueError: \x1b[31mred\u202e"),
        (ValueError("##[error] x"), r"ValueError: #\x23[error] x"),
        (RuntimeError("CUDA error: none\nCompile with DSA."), "RuntimeError: CUDA error: none"),
        (RuntimeError("Caught in worker 0.\nOriginal Traceback\nKeyError: 'x'"), "KeyError: 'x'"),
        (SyntaxError("invalid syntax", ("gone.py", 3, 1, "")), "SyntaxError: invalid syntax"),
    ],
)  # fmt: skip
def test_the_last_line_of_an_error(error, line):
    assert last_line(error) == line


def test_a_long_text_is_cut():
    assert len(last_line(ValueError("x" * 10**6))) == module.LONGEST_MESSAGE


def test_an_error_that_cannot_say_itself():
    class SilentError(Exception):
        def __str__(self):
            raise RuntimeError("twice")

    class LeavingError(Exception):
        def __str__(self):
            raise SystemExit

    class WrongError(Exception):
        def __str__(self):
            return 3  # noqa: PLE0307  # as someone wrote it

    for kind in (SilentError, LeavingError, WrongError):
        assert failed(kind()).endswith(f"the forward pass raised {kind.__name__}.")


# ------------------------------------------------------------------ where


def test_the_place_is_in_the_users_own_code_and_not_in_a_package():
    class Net(nn.Module):
        def forward(self, x):
            return nn.functional.linear(x, torch.ones(2, 3))  # the line

    with pytest.raises(RuntimeError) as caught:
        Net()(torch.ones(1, 5))
    own, line = place_of(caught.value).rsplit(":", 1)
    assert own.endswith("test_told.py")
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert lines[int(line) - 1].endswith("# the line")


def test_only_packages_on_the_way(monkeypatch):
    frames = [("/a/bncli/x.py", 1), ("/lib/timm/net.py", 7), ("/lib/torch/nn.py", 3)]
    folders = (
        ("/a/bncli", module._LIBRARY),
        ("/lib/torch", module._LIBRARY),
        ("/lib", module._PACKAGE),
    )
    monkeypatch.setattr(module, "_folders", lambda: folders)
    monkeypatch.setattr(module, "_standing", module._standing.__wrapped__)
    monkeypatch.setattr(module, "_frames", lambda trace: frames)
    assert place_of(ValueError()) == "/lib/timm/net.py:7"
    frames.insert(1, ("/home/me/net.py", 5))
    assert place_of(ValueError()) == "/home/me/net.py:5"
    frames[:] = [("/lib/torch/nn.py", 3), ("<frozen importlib>", 4)]
    assert place_of(ValueError()) == ""


def test_a_place_in_a_worker_is_read_from_its_text():
    text = (
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call "
        f'last):\n  File "{torch.__file__}", line 3, in fetch\n  File "/home/me/data.py", line 12, '
        'in __getitem__\n    raise ValueError("no")\nValueError: no\n'
    )
    assert failed(ValueError(text), "reading batch 1") == (
        "/home/me/data.py:12: reading batch 1 raised ValueError: no."
    )  # fmt: skip


# ------------------------------------------------------------------ hints


@pytest.mark.parametrize("model", [
    nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.LayerNorm(3), nn.Linear(3, 3),
    nn.ConvTranspose2d(3, 3, 1),
], ids=lambda model: type(model).__name__)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.uint8], ids=str)
def test_an_input_of_another_dtype_has_a_hint(model, dtype):
    with pytest.raises((RuntimeError, NotImplementedError)) as caught:
        model(torch.ones((2, 3, 3, 3), dtype=dtype))
    assert hint_for(caught.value).endswith("add --dtype float32.")
    assert failed(caught.value).endswith("add --dtype float32.")


def test_the_hint_names_the_dtype_of_the_weights():
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        with pytest.raises(RuntimeError) as caught:
            nn.Linear(3, 3, dtype=dtype)(torch.ones(2, 3))
        assert hint_for(caught.value).endswith(f"add --dtype {str(dtype)[6:]}.")
    with pytest.raises(ValueError, match="RNN input") as caught:
        nn.GRU(3, 3)(torch.ones(2, 3, dtype=torch.float64))
    assert hint_for(caught.value).endswith("add --dtype float32.")


def test_arguments_that_the_model_does_not_take():
    for given in ({"input": torch.ones(2, 3), "label": 1}, {}):
        with pytest.raises(TypeError) as caught:
            nn.Linear(3, 3)(**given)
        assert hint_for(caught.value).startswith("Name what the model takes of a batch with --inp")
    assert hint_for(TypeError("Net.forward() takes 1 positional argument but 2 were given"))
    assert hint_for(TypeError("f() got an unexpected keyword argument 'x'")) == ""


def test_no_hint_where_the_dtype_is_not_the_cause():
    with pytest.raises(RuntimeError) as caught:
        nn.Embedding(3, 3)(torch.ones(2))
    assert hint_for(caught.value) == ""
    with pytest.raises(RuntimeError) as caught:
        nn.Linear(3, 3)(torch.ones(2, 5))
    assert hint_for(caught.value) == ""
    assert hint_for(ValueError("x")) == ""


def test_axes_that_are_not_those_of_the_layer():
    def hint(layer, *shape):
        with pytest.raises((RuntimeError, ValueError)) as caught:
            layer(torch.ones(shape))
        return hint_for(caught.value)

    last = "If it is the input that has its channels last, give it as (N, C, ...)."
    assert hint(nn.Conv2d(3, 4, 3), 2, 8, 8, 3) == last
    assert hint(nn.Conv1d(3, 4, 3), 2, 8, 3) == last
    assert hint(nn.Conv2d(3, 4, 3), 2, 5, 8, 8) == ""
    one = "If the input is a single sample, give it a batch axis in front."
    assert hint(nn.BatchNorm2d(3), 3, 8, 8) == one
    assert hint(nn.BatchNorm3d(3), 3, 8, 8, 8) == one
    assert hint(nn.BatchNorm2d(3), 3, 8) == ""


def test_too_little_memory():
    hint = "Smaller batches take less memory (--batch-size for files)."
    assert failed(MemoryError()).endswith(f"raised MemoryError. {hint}")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 58, dtype=torch.uint8)
    assert hint_for(caught.value) == hint
