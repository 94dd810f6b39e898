"""An arm that reaches for a target, with links of unknown masses."""
