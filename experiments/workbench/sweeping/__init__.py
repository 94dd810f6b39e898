"""A search over an experiment's settings: trials that are ordinary runs, measured on validation tasks."""
