"""Networks and what they are made of: layers that keep a task axis, distributions, normalisation."""
