"""A trained model as it comes with audiodiff: small, checked, with a sheet of numbers and a card."""
