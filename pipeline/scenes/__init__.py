"""Pictures whose masks are known."""
