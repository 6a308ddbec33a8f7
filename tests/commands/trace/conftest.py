"""What several of these tests begin with."""

from __future__ import annotations

import pytest

from tests.commands.trace.samples import TUTORIAL


@pytest.fixture
def tutorial(repository):
    return repository / TUTORIAL
