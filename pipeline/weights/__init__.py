"""An id or a path to verified tensors."""
