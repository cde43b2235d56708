"""Real things for the tests to meet: a hub that serves, bundles that were built."""
