"""`python -m experiments` is the `metarl` command."""

from experiments.cli.main import main

main()
