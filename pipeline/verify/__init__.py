"""Is it right: quality and exhaustivity of masks."""
