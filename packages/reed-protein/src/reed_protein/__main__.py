"""`python -m reed_protein` is `reed-protein`."""

from reed_protein.cli import main

main()
