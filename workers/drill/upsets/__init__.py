"""A drill's second set of faults: pauses, clocks, lost services, damaged records, commands at once."""
