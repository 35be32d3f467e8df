"""Data sources, one file each. The embedded one, `tiles`, needs no download."""
