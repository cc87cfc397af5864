"""Who works on a dataset now."""
