"""The mathematics of diffusion: schedules, predictions, objectives, samplers. No audio, no layers, no files."""
