"""What several runs do alike."""
