"""Files as bytes: read as they were when opened, checked, and replaced in one step."""
