"""The comparison: a pass computed here and by another implementation, quantity by quantity."""
