"""Adaptation methods: each offers prior, adapt and predict over its own kind of state."""
