"""Supervised few-shot learning: families of functions, episodes of them, and learners."""
