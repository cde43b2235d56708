"""Where the weights come from: the hub or a folder, listed, fetched, checked."""
