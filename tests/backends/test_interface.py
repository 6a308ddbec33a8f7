"""Every backend: runs each kind in each mode and every norm, and says what is missing."""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from bncli import backends
from bncli.backends import BackendName, backend, installed
from bncli.backends.interface import (
    QUANTITIES,
    Averages,
    Backend,
    ChoosesPath,
    GivesSteps,
    IsRepeated,
    RunsNorms,
    StepsModule,
)
from bncli.dtypes import decode, encode
from bncli.errors import MissingBackendError
from bncli.model import BatchNormSettings
from tests.backends.calls import MODES, ROUNDING, SHAPES, call_of, expected_quantities


@pytest.fixture(params=list(BackendName), ids=lambda name: name.value)
def name(request):
    return request.param


def assert_run(name, call, rounding):
    run = backend(name).run(call)
    expected = expected_quantities(call)
    assert set(run.quantities) == set(expected) <= set(QUANTITIES)
    for quantity, values in expected.items():
        actual = run.quantities[quantity]
        assert actual.shape == values.shape, quantity
        np.testing.assert_allclose(
            actual, values, rtol=rounding, atol=rounding * (1 + np.abs(values).max()),
            err_msg=quantity,
        )  # fmt: skip
    return run


def test_a_backend_says_who_it_is(name):
    chosen = backend(name)
    assert chosen.name == name.value
    run = chosen.run(call_of((6, 3), BatchNormSettings()))
    assert chosen.version()
    assert run.threads >= 1


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    "settings", MODES, ids=lambda s: f"{s.training:d}{s.affine:d}{s.track_running_stats:d}"
)
def test_every_kind_in_every_mode(name, shape, settings):
    assert_run(name, call_of(shape, settings), 1e-10)


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize("settings", MODES[:2] + MODES[4:5] + MODES[7:], ids=repr)
def test_every_dtype(name, dtype, settings):
    run = assert_run(name, call_of((8, 3, 6), settings, dtype), ROUNDING[dtype])
    assert run.arithmetic.dtype == dtype
    for quantity in ("output", "grad_input"):
        values = run.quantities[quantity]
        np.testing.assert_array_equal(decode(encode(values, dtype), dtype), values)


@pytest.mark.parametrize("channel_axis", [0, 1, 2, 3])
def test_the_axes_are_the_users(name, channel_axis):
    shape = (2, 3, 4, 5)
    assert_run(name, call_of(shape, BatchNormSettings(), channel_axis=channel_axis), 1e-10)


@pytest.mark.parametrize("momentum", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_eps_and_momentum_reach_it(name, momentum, eps):
    call = call_of((6, 3, 4), BatchNormSettings(eps=eps, momentum=momentum))
    assert_run(name, call, 1e-10)


def test_momentum_none_counts_on(name):
    call = call_of((6, 3, 4), BatchNormSettings(momentum=None))
    run = backend(name).run(call)
    assert call.running is not None
    expected = call.running.running_mean * 3 / 4 + call.x.mean((0, 2)) / 4
    np.testing.assert_allclose(run.quantities["running_mean"], expected, rtol=1e-10)
    assert run.quantities["num_batches_tracked"].tolist() == [4]


def test_the_callers_arrays_are_left_alone(name):
    call = call_of((6, 3, 4), BatchNormSettings())
    assert call.running is not None
    assert call.weight is not None
    arrays = (call.x, call.grad_output, call.weight, call.running.running_mean)
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    backend(name).run(call)
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)


# ---------------------------------------------------------------------------- the registry

SHARED = {"interface", "arithmetic", "users"}


def forgotten(package, listed: set[str]) -> list[str]:
    """What backends in `package` lack, a sentence each; `listed` are the names in the enum."""
    files = {module.name for module in pkgutil.iter_modules(package.__path__)} - SHARED
    said = [f"{name}.py is a backend that BackendName does not list" for name in files - listed]
    said += [f"BackendName lists {name}, and there is no {name}.py" for name in listed - files]
    for name in sorted(files & listed):
        found = getattr(import_module(f"{package.__name__}.{name}"), "BACKEND", None)
        if found is None:
            said.append(f"{name}.py has no BACKEND")
            continue
        lacking = [member for member in ("name", "version", "run") if not hasattr(found, member)]
        said += [f"BACKEND of {name}.py has no {member}" for member in lacking]
        if getattr(found, "name", name) != name:
            said.append(f"BACKEND of {name}.py calls itself {found.name}")
    return said


def test_no_piece_of_a_backend_is_forgotten():
    assert forgotten(backends, {name.value for name in BackendName}) == []


@pytest.mark.parametrize(
    ("code", "listed", "sentence"),
    [
        ("", False, "numbers.py is a backend that BackendName does not list"),
        (None, True, "BackendName lists numbers, and there is no numbers.py"),
        ("", True, "numbers.py has no BACKEND"),
        ("version = run = print", True, "BACKEND of numbers.py has no name"),
        ("name = 'numbers'; run = print", True, "BACKEND of numbers.py has no version"),
        ("name = 'numbers'; version = print", True, "BACKEND of numbers.py has no run"),
        ("name = 'n'; version = run = print", True, "BACKEND of numbers.py calls itself n"),
        ("name = 'numbers'; version = run = print", True, None),
    ],
)
def test_a_forgotten_piece_is_named(tmp_path, monkeypatch, code, listed, sentence):
    folder = Path(tmp_path, "some_backends")
    folder.mkdir()
    for name in ("__init__", *SHARED):
        (folder / f"{name}.py").touch()
    if code is not None:
        text = f"class BACKEND: {code}" if code else "pass"
        (folder / "numbers.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("some_backends", "some_backends.numbers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    package = import_module("some_backends")
    found = forgotten(package, {"numbers"} if listed else set())
    assert found == ([sentence] if sentence else [])


def test_what_torch_may_is_what_a_backend_may():
    torch_backend = installed(BackendName.TORCH)
    for kind in (Backend, Averages, ChoosesPath, GivesSteps, IsRepeated, RunsNorms, StepsModule):
        assert isinstance(torch_backend, kind)


# ---------------------------------------------------------------------------- missing


def hide_library(name, monkeypatch):
    """Let the library of a backend be missing; a backend need not be called as its library."""
    if importlib.util.find_spec(name.value) is None:
        pytest.skip(f"no library is called {name.value}: test what is said without its own")
    monkeypatch.setitem(sys.modules, name.value, None)


def test_a_missing_library_is_one_sentence(name, monkeypatch):
    hide_library(name, monkeypatch)
    with pytest.raises(MissingBackendError) as caught:
        backend(name).run(call_of((6, 3), BatchNormSettings()))
    assert "is not installed here, and the comparison needs it: " in str(caught.value)
    assert "python -m pip install" in str(caught.value)
    with pytest.raises(MissingBackendError):
        installed(name)


def test_against_a_missing_library_is_exit_2(run, save, name, monkeypatch):
    x = save("x.npy", np.random.default_rng(0).normal(size=(6, 3)))
    hide_library(name, monkeypatch)
    code, stdout, stderr = run("compute", x, "--against", name.value)
    assert (code, stdout) == (2, "")
    assert stderr.count("\n") == 1
    assert "python -m pip install" in stderr
    assert run("compute", x).code == 0


@pytest.mark.parametrize("command", ["compute", "trace", "compare-norms", "diff"])
def test_a_wrong_path_is_told_before_a_missing_library(run, name, command, monkeypatch):
    """Whoever installs the library first would then hear that there is no such file."""
    hide_library(name, monkeypatch)
    result = run(command, "missing.npy", "--against", name.value)
    assert (result.code, result.stderr) == (2, "bncli: missing.npy: there is no such file.\n")


def test_every_backend_is_named_in_the_flag(run, save, name):
    x = save("x.npy", np.random.default_rng(0).normal(size=(6, 3)))
    result = run("compute", x, "--against", name.value, "-f", "json")
    assert result.code == 0
    assert result.report["facts"]["backend"] == name.value
