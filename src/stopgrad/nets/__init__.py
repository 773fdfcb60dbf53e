"""Networks: backbones, heads and the moving average."""
