"""Model versions in MLflow's registry."""
