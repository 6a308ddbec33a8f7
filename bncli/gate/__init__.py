"""Which findings count: the project's settings, `--select` and `--ignore`, and the baseline."""
