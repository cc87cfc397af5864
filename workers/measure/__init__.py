"""How good a model or a generation is."""
