"""Meta-World's benchmarks as a task family, whose rows run in an interpreter that has the package `metaworld`."""
