"""The deep audit of a dataset: what decoded pixels, embeddings and file traits tell of it."""
