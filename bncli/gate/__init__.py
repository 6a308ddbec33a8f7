"""Which findings count: `--select` and `--ignore`, the baseline, and the project's settings.

One enters by four doors, each imported where its flag is given:

    settings.load_settings      what pyproject.toml gives the flags that are not typed
    selection.selected          the report without the findings that are not asked for
    baseline.known_removed      the report without those that a baseline knows, by
        entries                 what its file says, and of version 1
        former                  what that knew, by its own rule
        extent                  how far a known finding may reach
        files                   where the paths in it lead to
    baseline.update_baseline    the file rewritten, under its
        lock                    one process at a time

`places` says for all of them, and for SARIF's fingerprints, where a finding is.
"""
