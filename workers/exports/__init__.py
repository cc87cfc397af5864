"""Datasets in other people's formats: one file a format, listed in formats.py.

All are whole or resumable, and closed by an `export.json`; see report.py. The list costs nothing to read.
"""
