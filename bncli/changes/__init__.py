"""What happened to BatchNorm layers between checkpoints, and what one file is of many others."""
