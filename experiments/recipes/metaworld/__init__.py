"""Meta-World: a robot arm with 50 kinds of tasks, in an interpreter of its own (`metarl setup metaworld`)."""
