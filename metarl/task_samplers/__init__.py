"""Samplers of training tasks: which tasks a learner meets, given how it fared in earlier ones."""
