"""Tars of samples, and the rows beside them."""
