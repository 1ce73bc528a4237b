"""Capture files: read, put in order, and who was heard in them."""
