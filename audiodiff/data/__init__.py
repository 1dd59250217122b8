"""Corpora as lhotse manifests, segments of their cuts, batches: all between audio files and a Batch."""
