"""What is made of the weights, of each format, and how good it is."""
