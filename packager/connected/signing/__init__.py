"""Private keys, and everything that is signed with them."""
