"""What maps and geographic information systems read: outlines of cells, rasters of mass, files."""
