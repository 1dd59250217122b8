"""Anomalies: how well recordings are denoised, frame by frame, and which of them are unlike the normal ones."""
