"""Gymnasium's Pendulum: an external environment as a task family."""
