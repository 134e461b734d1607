"""`python -m reed_molecule` is `reed-molecule`."""

from reed_molecule.cli import main

main()
