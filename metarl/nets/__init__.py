"""Networks and their building blocks: layers with a task axis, distributions, normalisation."""
