"""What exists: columns, commit records, generations, models, tags, reviews."""
