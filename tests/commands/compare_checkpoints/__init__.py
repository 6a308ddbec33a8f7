"""Tests of `bncli compare-checkpoints`."""
