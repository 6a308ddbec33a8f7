"""Files as bytes: read as they stood when they were opened, checked, and replaced whole."""
