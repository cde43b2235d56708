"""From files to volumes: the layout of the payload, its bytes, its parity, its room."""
