"""The figures of a model package on the test split: scores, metrics with their uncertainty, pictures and reports."""
