"""The paper's tables and figures, run again, and the published table of earth events."""


def __getattr__(name):
    """Give the names of `geoflow.paper.tables` here too, on first use."""
    if name in ("Line", "Table", "names", "read_reports", "table"):
        from geoflow.paper import tables

        return getattr(tables, name)
    raise AttributeError(f"module 'geoflow.paper' has no attribute {name!r}")
