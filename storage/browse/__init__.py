"""A generation a page at a time: pictures found by what their masks are, and single samples."""
