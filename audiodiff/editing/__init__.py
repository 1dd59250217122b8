"""Edits of recordings by a trained prior that was never trained to edit: fill, continue, declip, extend, denoise."""
