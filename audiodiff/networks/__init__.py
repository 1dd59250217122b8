"""Networks: nn.Modules that map (x, noise_label, condition) to something of x's shape. They know no schedule."""
