"""The verdicts column: how good each mask is, and whether a picture's masks are all."""
