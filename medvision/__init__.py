"""From a folder of medical images to a validated, registered, served model, with MLflow at the centre."""

__version__ = "0.1.0"
