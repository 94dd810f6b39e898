"""A robot of one's own: an MJCF file, a reward and parameter ranges, as a family that every agent trains on."""
