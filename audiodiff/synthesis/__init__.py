"""What people ask of a trained model: sounds by label, waveforms from mels."""
