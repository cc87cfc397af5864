"""What a run makes, in values: columns, spec, events."""
