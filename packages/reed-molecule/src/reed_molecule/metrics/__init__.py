"""Metrics of molecules: pure functions on lists of `Molecule | Failure`; one file for each family."""
