"""Maps and widgets."""
