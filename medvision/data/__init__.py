"""From files on disk to arrays that a model can be trained and judged on, without leaks."""
