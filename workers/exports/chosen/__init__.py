"""What of a generation is exported: which images, which masks, of which class, in which split."""
