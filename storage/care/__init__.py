"""Verify, repair, forget, collect."""
