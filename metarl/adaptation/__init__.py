"""The ways to adapt: each is prior, adapt and predict over a state of its own kind."""
