"""Pictures to a column, one file a column."""
