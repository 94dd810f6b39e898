"""Runs compared: what differs between them, how well they do, and how certain that is."""
