"""What is written of a version for people and authorities: the model card, and the archive of all evidence."""
