"""Waveforms in files (io), their log-mel spectrograms (mel), and what is diffused (representation)."""
