"""The peers of the benchmark `updates`: each update once more in plain torch and in JAX, from the same numbers."""
