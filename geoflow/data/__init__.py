"""Data sets, photos, embeddings: one file per source."""
