"""Our masks beside those of the family's own code: pairs, seconds, memory."""
