"""An image and its embedding to masks: grid, filters, suppression, regions, upsampling."""
