"""Faults of live models, each made by its cause, and healthy nets; all small and trained here."""
