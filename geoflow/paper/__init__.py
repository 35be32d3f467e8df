"""The paper's tables and figures, run again, and the published table of earth events."""

from geoflow.paper.tables import Line, Table, names, read_reports, table

__all__ = ["Line", "Table", "names", "read_reports", "table"]
