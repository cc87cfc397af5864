"""What nano is shown: generated scenes and cropped photographs, mixed into batches."""
