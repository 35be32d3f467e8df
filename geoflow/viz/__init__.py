"""What people look at: maps and widgets."""
