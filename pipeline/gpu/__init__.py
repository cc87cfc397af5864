"""The mask engine batched on a device: fixed shapes, and one wait an image."""
