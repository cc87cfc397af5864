"""Named bytes: the protocol, a local folder, S3."""
