"""Image files to arrays and back: the codec, and what it must know of pixels, profiles and endings."""
