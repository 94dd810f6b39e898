"""What a meta-learner has learned: probes of its state, diagnoses of self-deception, and portfolios of learners."""
