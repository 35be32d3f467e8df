"""The paper's tables and figures, run again, and the published table of earth events."""
