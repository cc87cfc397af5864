"""Samples and words of a generation, joined."""
