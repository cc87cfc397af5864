"""What people make of pictures: begun from masks or an earlier save, checked, kept, built into `review`."""
