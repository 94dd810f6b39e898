"""The meta-learner core of MetaRL; it knows no environment and no agent."""
