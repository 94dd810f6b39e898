"""`python -m experiments` is the `metarl` command."""

from experiments.cli import main

main()
