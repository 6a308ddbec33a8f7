"""What the objects of a pickle hold: the keys that lead on, and what a module says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bncli.errors import CorruptFileError
from bncli.loaders.pickle_records import Dict, Record
from bncli.loaders.torch_values import class_of
from bncli.model import BatchNormModule

MOST_ATTRIBUTES = 4
"""A module's attributes are its state, or one of the first arguments of what makes it again."""

Pairs = Sequence[tuple[object, object]]

_ABSENT = object()


class Objects:
    """The objects of one file, looked into within a number of `steps` that sharing may not exceed.

    What was found is kept by identity, so that a part that many objects share costs its work once.
    """

    def __init__(self, path: Path, steps: int) -> None:
        self.path = path
        self.steps = steps
        self.attributes: dict[int, dict[str, object]] = {}
        self.unique: dict[int, Pairs] = {}
        self.texts: dict[int, set[str]] = {}

    def spend(self, steps: int) -> None:
        """Count work that sharing may repeat."""
        self.steps -= steps
        if self.steps < 0:
            raise self.unfolds()

    def unfolds(self) -> CorruptFileError:
        """The error for objects whose paths are far more than they are themselves."""
        return CorruptFileError(
            self.path,
            "its objects refer to each other more often or more deeply than those of a checkpoint,"
            " and following them would take far too long; save only the weights, as"
            " model.state_dict() returns them.",
        )

    def items(self, node: object) -> Iterator[tuple[str, object]]:
        """What a node holds, by the keys that lead there."""
        if isinstance(node, Dict):
            yield from ((_key(key), value) for key, value in self._pairs(node))
        elif isinstance(node, list | tuple):
            yield from ((str(index), value) for index, value in enumerate(node))
        elif isinstance(node, Record) and self.is_module(node):
            yield from self._module_items(node)
        elif isinstance(node, Record):
            cls = class_of(node)
            if cls is not None and cls.name == "OrderedDict":
                for arg in node.args:
                    self.spend(len(arg) if isinstance(arg, list) else 0)
                    yield from _listed_pairs(arg)
            elif cls is not None and cls.name == "OptimizedModule":
                # What torch.compile makes of a module: (the module, a context).
                yield from (("_orig_mod", module) for module in node.args[:1])
            else:
                yield from ((str(index), value) for index, value in enumerate(node.args))
            yield from ((str(index), value) for index, value in enumerate(node.elements))
            yield from ((_key(key), value) for key, value in self._pairs(node))
            for part in _state_parts(node):
                if isinstance(part, Dict | list | tuple):
                    yield from self.items(part)
                else:
                    yield "state", part

    def _pairs(self, node: Dict | Record) -> Pairs:
        """The items of a dictionary; of those with the same text for a key, the last."""
        pairs = self.unique.get(id(node))
        if pairs is None:
            last = {key: at for at, (key, _) in enumerate(node.pairs) if isinstance(key, str)}
            pairs = [
                pair
                for at, pair in enumerate(node.pairs)
                if not isinstance(pair[0], str) or last[pair[0]] == at
            ]
            self.unique[id(node)] = pairs
        return pairs

    def _module_items(self, record: Record) -> Iterator[tuple[str, object]]:
        """The parameters, the buffers that state_dict() keeps, and the modules inside."""
        hidden = self._texts(self._attribute(record, "_non_persistent_buffers_set"))
        yield from self._named(self._attribute(record, "_parameters")).items()
        for name, buffer in self._named(self._attribute(record, "_buffers")).items():
            self.spend(1)
            if name not in hidden:
                yield name, buffer
        yield from self._named(self._attribute(record, "_modules")).items()

    def _named(self, node: object) -> dict[str, object]:
        """The items of a dictionary of any kind that have a text for a key; kept by identity."""
        named = self.attributes.get(id(node))
        if named is None:
            named = {}
            if isinstance(node, Record):
                for arg in node.args:
                    self.spend(len(arg) if isinstance(arg, list) else 0)
                    named.update(_listed_pairs(arg))
            if isinstance(node, Dict | Record):
                named.update((k, v) for k, v in node.pairs if isinstance(k, str))
                self.attributes[id(node)] = named
        return named

    def _texts(self, node: object) -> set[str]:
        """The texts in a set, as set([...]) or as the set's own opcodes; kept by identity."""
        if not isinstance(node, Record):
            return set()
        texts = self.texts.get(id(node))
        if texts is None:
            first = node.args[0] if node.args else ()
            items = first if isinstance(first, list) else []
            self.spend(len(items))
            texts = {t for part in (node.elements, items) for t in part if isinstance(t, str)}
            self.texts[id(node)] = texts
        return texts

    def _attribute(self, record: Record, key: str, absent: object = None) -> object:
        """An attribute that the record was given; `absent` where it has none of that name."""
        for part in reversed((*record.args[:MOST_ATTRIBUTES], *_state_parts(record))):
            if isinstance(part, Dict) and key in (named := self._named(part)):
                return named[key]
        return absent

    def is_module(self, record: Record) -> bool:
        """Whether the record is a torch.nn.Module."""
        return all(
            isinstance(self._attribute(record, key), Dict | Record)
            for key in ("_parameters", "_buffers", "_modules")
        )

    def norm_name(self, record: Record) -> str:
        """The class name of a module that is a BatchNorm or keeps running statistics, else ""."""
        cls = class_of(record)
        if cls is None:
            return ""
        if self.is_module(record):
            buffers = self._named(self._attribute(record, "_buffers"))
            if "running_mean" in buffers and "running_var" in buffers:
                # Without tracking, the buffers are None.
                named = "Norm" in cls.name or buffers["running_mean"] is not None
                return cls.name if named else ""
            is_norm = "BatchNorm" in cls.name and self._attribute(record, "eps") is not None
            return cls.name if is_norm else ""
        if _is_script(record) and all(
            self._attribute(record, key) is not None for key in ("running_mean", "running_var")
        ):
            return cls.name
        return ""

    def module(self, record: Record) -> BatchNormModule | None:
        """What the file says of a module whose statistics matter, beside its tensors."""
        class_name = self.norm_name(record)
        if not class_name:
            return None

        def number(key: str) -> float | None:
            value = self._attribute(record, key)
            if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53:
                return float(value)
            return value if isinstance(value, float) else None

        def flag(key: str) -> bool | None:
            value = self._attribute(record, key)
            return value if isinstance(value, bool) else None

        return BatchNormModule(
            class_name,
            eps=number("eps"),
            momentum=number("momentum"),
            affine=flag("affine"),
            track_running_stats=flag("track_running_stats"),
            training=flag("training"),
            has_momentum=self._attribute(record, "momentum", absent=_ABSENT) is not _ABSENT,
        )


def _is_script(record: Record) -> bool:
    """Whether the record is an object of TorchScript, whose attributes are its state."""
    cls = class_of(record)
    return cls is not None and cls.module.startswith("__torch__")


def _state_parts(record: Record) -> tuple[object, ...]:
    """The states that a record was given; a class with slots has them in a pair."""
    parts: tuple[object, ...] = ()
    for state in record.states:
        if isinstance(state, tuple) and len(state) == 2 and any(isinstance(p, Dict) for p in state):
            parts += state
        else:
            parts += (state,)
    return parts


def _listed_pairs(arg: object) -> Iterator[tuple[str, object]]:
    """The items of OrderedDict([[key, value], ...]), which is how Python 2 pickles one."""
    for pair in arg if isinstance(arg, list) else ():
        if isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str):
            yield pair[0], pair[1]


def _key(key: object) -> str:
    """A dictionary's key as a part of a name."""
    if isinstance(key, str):
        return key
    if isinstance(key, int):
        return str(key)
    if isinstance(key, tuple) and all(isinstance(part, str | int) for part in key[:8]):
        return f"({', '.join(str(part) for part in key[:8])})"
    return "?"
