"""Files that others made: one reader of annotations, one rule for whose picture a name means."""
