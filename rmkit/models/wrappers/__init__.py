"""What is laid over finished models: calibration, dropout uncertainty, ensembles."""
