"""Few-shot methods, one file each: paper and deviations, the adaptation, the configuration, the learner."""
