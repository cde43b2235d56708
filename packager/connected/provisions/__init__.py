"""What travels beside the models: airpack itself, its wheels, libgomp, the pages for people."""
