"""What several of these tests begin with."""

from __future__ import annotations

import pytest

from tests.commands.identify.samples import saved_layer


@pytest.fixture
def layer(save):
    return saved_layer(save)
