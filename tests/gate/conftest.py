"""A gate in a folder of its own."""

from __future__ import annotations

import pytest

from tests.gate.gates import Gate


@pytest.fixture
def gate(folder, capsys):
    return Gate(folder)


@pytest.fixture
def fresh(tmp_path_factory, monkeypatch, capsys):
    """A gate in a folder of its own for each example."""

    def fresh() -> Gate:
        folder = tmp_path_factory.mktemp("gate")
        monkeypatch.chdir(folder)
        return Gate(folder)

    return fresh
