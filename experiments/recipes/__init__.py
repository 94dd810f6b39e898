"""Recipes: one experiment per file, named family/agent, complete in itself."""
