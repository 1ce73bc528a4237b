"""A gateway's directory: made, checked, backed up, restored."""
