"""What is it called: captions, boxes, names."""
