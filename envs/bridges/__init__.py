"""Bridges from our vectorised environments to Gymnasium and Stable-Baselines3."""
