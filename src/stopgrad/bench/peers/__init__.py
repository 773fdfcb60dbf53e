"""Other libraries' loops, on the same images."""
