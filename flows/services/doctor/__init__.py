"""What would keep a run from working here, found out before it: a line each, with what to do."""
