"""Waveforms in and out of files (io), their log-mel spectrograms (mel), and what is diffused (representation)."""
