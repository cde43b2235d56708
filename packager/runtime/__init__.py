"""The engine: run in a subprocess, cut off from the network, asked, compared, served."""
