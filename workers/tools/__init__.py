"""Other people's editors: what they are given, and what comes back of it as reviews."""
