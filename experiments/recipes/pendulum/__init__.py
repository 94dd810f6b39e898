"""Gymnasium's pendulum: an environment of others as a task family."""
