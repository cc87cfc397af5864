"""Other people's files: annotations and image codecs."""
