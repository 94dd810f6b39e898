"""The workbench: work with many runs at once."""
