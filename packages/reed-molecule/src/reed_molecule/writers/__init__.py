"""Writers of molecules: each file is whole or absent."""
