import pytest

from bncli.moments import fast, layout, small

from .summed import take_all


@pytest.fixture
def cut(monkeypatch):
    """A function that makes tasks and tiles small, so that small arrays have many."""

    def cut(task, tile):
        monkeypatch.setattr(layout, "TASK_VALUES", task)
        monkeypatch.setattr(layout, "TILE_VALUES", tile)
        monkeypatch.setattr(small, "_SMALL_VALUES", 0)
        sizes = layout.Sizes(2 * task, task // 2 + 1)
        monkeypatch.setattr(fast, "IN_MEMORY", sizes)
        monkeypatch.setattr(fast, "IN_FILE", sizes)
        monkeypatch.setattr(fast, "_CALL_VALUES", max(8, tile // 8))
        monkeypatch.setattr(fast, "_PIECE_VALUES", max(4, tile // 128))

    return cut


@pytest.fixture(params=["NumPy", "NumKong"])
def summed_by(request, monkeypatch):
    """The engine with NumPy alone, None, and with NumKong for all it can sum, a `Taken`."""
    kernels = fast.kernels()
    if request.param == "NumPy":
        monkeypatch.setattr(fast, "kernels", lambda: None)
        return None
    if kernels is None:
        pytest.skip("NumKong is not installed")
    return take_all(monkeypatch, kernels)
