"""Compute mean and standard deviation of the training pixels: the same as ``medvision normalize``."""

from medvision.cli import main_step
from pipelines.normalize import normalize

if __name__ == "__main__":
    main_step(normalize)
