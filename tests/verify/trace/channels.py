"""Views of a channel, and a batch of the simplest module."""

from __future__ import annotations

from bncli.model import BatchNormSettings
from bncli.verify.trace import ChannelView
from tests.configurations import Configuration


def views(given, g, channel):
    return (
        ChannelView(given.x, given.channel_axis, channel, lambda part: part),
        ChannelView(g, given.channel_axis, channel, lambda part: part),
    )


def plain(x):
    """A batch of a module with nothing but eps."""
    layer = BatchNormSettings(affine=False, track_running_stats=False)
    return Configuration(x, "float64", 1, layer, None, None, None)
