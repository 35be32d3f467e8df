"""How good answers are: metrics of places and distributions, and the report of a model."""
