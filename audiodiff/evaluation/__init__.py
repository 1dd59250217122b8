"""Scores: metrics against a reference, a judge that recognises labels, tables and pictures of the results."""
