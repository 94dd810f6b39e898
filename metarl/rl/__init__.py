"""Reinforcement learning: rollouts, trials, replay and losses."""
