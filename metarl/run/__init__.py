"""The run directory: settings, logs, checkpoints, evaluations and where they came from."""
