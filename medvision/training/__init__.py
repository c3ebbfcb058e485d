"""From a split dataset and a network to the best checkpoint; knows nothing of MLflow."""
