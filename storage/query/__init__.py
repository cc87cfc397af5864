"""Asking a dataset in SQL: its rows as tables, conditions on them, answers as files."""
