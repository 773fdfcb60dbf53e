"""`python -m stopgrad`."""

from stopgrad.cli.main import main

main()
