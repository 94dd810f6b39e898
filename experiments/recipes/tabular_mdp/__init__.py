"""Recipes of this family."""
