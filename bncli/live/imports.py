"""What the user names in code: `package.module:name` or `file.py:name`, imported and found."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, cast

from bncli.errors import FileError, ModelError, UsageError
from bncli.files.reading import read_bytes, remember_path
from bncli.given import is_given, object_of
from bncli.live.users_code import let_import_from, users_code
from bncli.loaders.names import listed, missing, nearest, quoted
from bncli.loaders.objects import is_code

_NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_FORM = re.compile(rf"(?P<where>.+?\.py|{_NAME})(?P<colon>::?)(?P<name>(?:{_NAME})?)")
CLASSES = ("model", "BatchNorm")
"""What is rather a class than a function."""

_DEFINED = re.compile(rb"^(class|def)[ \t]+([A-Za-z]\w*)", re.MULTILINE)
"""What a file defines for others, each at the beginning of a line."""


class CodeName(NamedTuple):
    """`where` is a module or a file, `name` what is meant in it, with dots for what is inside.

    Or `where` is the name of an object of Python, and `name` is "".
    """

    where: str
    name: str

    @property
    def is_file(self) -> bool:
        """Whether it is a file, and not a module."""
        return self.where.endswith(".py")

    def __str__(self) -> str:
        """As the user would type it, printable."""
        if is_given(self.where):
            return self.where
        return quoted(f"{self.where}:{self.name}", 200)


def code_name(spec: str) -> CodeName | None:
    """What `package.module:name` or `file.py:name` says; None for what is not written so.

    A path to a file that is there is not; a file of Python code without a name has the name "". Of
    objects, what is no file's (an array, a dictionary of tensors, statistics) is code.
    """
    if is_given(spec):
        return CodeName(spec, "") if is_code(object_of(spec)) else None
    if spec.endswith(".py"):
        return CodeName(spec, "")
    if os.path.exists(spec):  # noqa: PTH110 (unlike Path.exists, false for an impossible path)
        return None
    found = _FORM.fullmatch(spec)
    if found is None or (found["colon"] == "::" and not found["where"].endswith(".py")):
        return None
    return CodeName(found["where"], found["name"])


def code_file(code: CodeName) -> Path | None:
    """The file that code is in, found without running any; None where none is found."""
    if is_given(code.where):
        return None
    if code.is_file:
        path = Path(code.where)
        return path if path.is_file() else None
    folders = [Path(), *map(Path, sys.path)]
    file = None
    for part in code.where.split("."):
        places = [folder / part for folder in folders]
        ways = ((place / "__init__.py", place.with_name(f"{part}.py")) for place in places)
        file = next((way for pair in ways for way in pair if way.is_file()), None)
        if file is None:
            folders = [place for place in places if place.is_dir()]
        else:
            folders = [file.parent] if file.name == "__init__.py" else []
    return file


def find(code: CodeName, kind: str) -> Any:
    """Import the module or the file, and return what the name means in it.

    `kind`, such as "model" or "data", says what is looked for. Raises FileError for a file that is
    not there, UsageError where no name is given, and ModelError where the import raises, or nothing
    is called so: it lists the near names.
    """
    if is_given(code.where):
        return object_of(code.where)
    if code.is_file:
        path = Path(code.where)
        if not path.is_file():
            raise missing(path) if not path.exists() else FileError(path, "it is not a file.")
    if not code.name:
        where = quoted(code.where)
        raise UsageError(f"{where}: name the {kind} in it, {_example(code, kind)}.")
    let_import_from(os.getcwd(), code.where)  # noqa: PTH109  # as sys.path has it
    module = _import_file(Path(code.where)) if code.is_file else _import_module(code)
    value: Any = module
    with users_code(f"looking up {code}"):  # properties, or a __getattr__ of the module
        for part in code.name.split("."):
            if not hasattr(value, part):
                raise ModelError(_unknown(code, value, part, kind))
            value = getattr(value, part)
    return value


def find_function(spec: str, kind: str) -> Callable[..., Any]:
    """The function that `package.module:name` or `file.py:name` names; raises as `find`."""
    code = code_name(spec)
    if code is None:
        raise UsageError(
            f"{quoted(spec)}: write the {kind} as package.module:name or file.py:name."
        )
    value = find(code, kind)
    if not callable(value):
        raise ModelError(f"{code}: it is {kind_of(value)}, not a function.")
    return cast("Callable[..., Any]", value)


def _example(code: CodeName, kind: str) -> str:
    """How to name something in a file, taken from what it defines; some are first a class."""
    names: list[str] = []
    if code.is_file:
        try:
            found = _DEFINED.findall(read_bytes(code.where))
        except OSError:
            found = []
        found.sort(key=lambda each: (each[0] == b"class") != (kind in CLASSES))
        names = [name.decode() for _, name in found]
    where = quoted(code.where)
    if not names:
        return f"such as {where}:NAME"
    return f"such as {where}:{names[0]}; it defines {listed(names)}"


def _unknown(code: CodeName, value: Any, part: str, kind: str) -> str:
    """The sentence for a name that is not there."""
    names = [name for name in dir(value) if not name.startswith("_")]
    inside = code.name.split(".")
    before = ".".join(inside[: inside.index(part)])
    where = quoted(f"{code.where}:{before}" if before else code.where)
    sentence = f"{where}: there is no '{quoted(part)}' in it"
    if near := nearest(names, part):
        return f"{sentence}; did you mean {listed(near, ' or ')}?"
    own = [name for name in names if _is_own(value, name)]
    if not own:
        return f"{sentence}, and nothing that could be the {kind}."
    return f"{sentence}; it defines {listed(own)}."


def _is_own(value: Any, name: str) -> bool:
    """Whether a name in a module was defined there, and not imported."""
    if not isinstance(value, ModuleType):
        return True
    there = vars(value).get(name)
    return not isinstance(there, ModuleType) and (
        getattr(there, "__module__", value.__name__) == value.__name__
    )


def _import_module(code: CodeName) -> ModuleType:
    """A module by its name. Raises ModelError where it is not there or raises."""
    importlib.invalidate_caches()
    with users_code(f"importing {code.where}"):
        try:
            module = importlib.import_module(code.where)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{code.where}.".startswith(f"{error.name}."):
                raise  # it is there, and imports something that is not
            near = nearest([path.stem for path in Path().glob("*.py")], code.where)
            instead = (
                f"did you mean {listed([f'{name}.py:{code.name}' for name in near], ' or ')}?"
                if near
                else "write package.module:name, or file.py:name for a file."
            )
            raise ModelError(
                f"{code}: there is no module '{quoted(error.name)}', neither in the current folder "
                f"nor installed; {instead}"
            ) from error
    if (file := _file_of(module)) is not None:
        remember_path(file)
    return module


def _import_file(path: Path) -> ModuleType:
    """A file under its own module name. Raises ModelError where it raises."""
    remember_path(path)  # so that no report takes its place
    real = path.resolve()
    let_import_from(str(real.parent), str(path))
    name = path.stem
    there = sys.modules.get(name)
    if there is not None and _file_of(there) == real:
        return there
    if there is not None or name in sys.stdlib_module_names or not name.isidentifier():
        name = f"_file_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}"  # which takes nobody's place
        there = sys.modules.get(name)
        if there is not None and _file_of(there) == real:
            return there
    spec = importlib.util.spec_from_file_location(name, real)
    assert spec is not None  # the file's name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with users_code(f"importing {quoted(str(path))}"):
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _file_of(module: ModuleType) -> Path | None:
    """The file of a module, if it has one."""
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if isinstance(file, str) else None


def kind_of(value: Any) -> str:
    """What a value is, with an article: "an int", "a module"."""
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    if value is None:
        return "None"
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {quoted(name)}"
