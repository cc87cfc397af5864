"""Browse and review in a browser: one page, its server, and the decoder that answers clicks."""
