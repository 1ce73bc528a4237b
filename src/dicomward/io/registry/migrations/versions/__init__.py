"""One file for each version of the tables, oldest first; a released file never changes."""
