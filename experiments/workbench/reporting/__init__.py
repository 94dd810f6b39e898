"""Runs as one HTML file that opens without a network: what was run, how well it adapts, and what went wrong."""
