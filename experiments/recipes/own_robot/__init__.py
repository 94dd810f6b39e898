"""A custom robot: an MJCF file, a reward and parameter ranges, as a family for any agent."""
