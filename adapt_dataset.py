"""Bring in a dataset that medvision has never seen: the same as ``medvision adapt``."""

from medvision.cli import main_step
from pipelines.adapt import adapt

if __name__ == "__main__":
    main_step(adapt)
