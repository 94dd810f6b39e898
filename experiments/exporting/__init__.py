"""Exporting a trained learner to files that run without PyTorch, and the proof that they do what the learner does."""
