"""Conditioners: what labels and mels mean to a network, and what "nothing" is."""
