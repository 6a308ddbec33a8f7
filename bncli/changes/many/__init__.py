"""What many checkpoints are to each other: sources of a target, a series in time, ranks."""
