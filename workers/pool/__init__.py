"""The turns of many, on Ray."""
