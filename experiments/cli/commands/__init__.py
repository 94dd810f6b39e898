"""The subcommands of `metarl`: a module each, whose docstring is its help and whose `main` runs it."""
