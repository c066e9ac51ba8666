"""Very many starts at once."""
