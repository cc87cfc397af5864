"""Formats in which a pixel has one meaning: maps of segments (panoptic.py) and of classes (semantic.py)."""
