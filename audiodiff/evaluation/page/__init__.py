"""The page of an evaluation: one HTML file with tables, sounds and pictures that asks nothing of the network."""
