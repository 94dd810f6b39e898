"""A quadruped that walks at a commanded speed, with an unknown payload, floor and strength of the motors."""
