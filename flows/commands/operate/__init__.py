"""Commands that run and care for it all."""
