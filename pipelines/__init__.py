"""The steps of a model's life, a readable file each: every one runs as `medvision STEP` and `mlflow run . -e STEP`."""
