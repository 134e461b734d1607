"""Readers of molecules: one file per format, and the choice among them by a file's name and content."""

from reed_molecule.readers.choose import open_source as open_source
from reed_molecule.readers.source import Source as Source
