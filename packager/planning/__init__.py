"""What a model will take of a host, told before it is carried there."""
