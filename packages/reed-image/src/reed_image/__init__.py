"""REED for images. This version holds its command line and nothing else: no model, no reader of data."""

__version__ = "0.1.0"
