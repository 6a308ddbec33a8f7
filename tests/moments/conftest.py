import pytest

from bncli.moments import engine, layout


@pytest.fixture
def cut(monkeypatch):
    """A function that makes tasks and tiles small, so that small arrays have many."""

    def cut(task, tile):
        monkeypatch.setattr(layout, "TASK_VALUES", task)
        monkeypatch.setattr(layout, "TILE_VALUES", tile)
        monkeypatch.setattr(engine, "_SMALL_VALUES", 0)

    return cut
