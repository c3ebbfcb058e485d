"""Answers for images, given by a model package; never imports training."""
