"""Exports as the tools that read them open them; the checks run in those tools' environment."""
