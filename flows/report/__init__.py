"""Tables, artifacts, progress."""
