"""Commands that make a dataset."""
