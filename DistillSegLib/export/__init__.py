"""From a trained network to a package that runs without torch."""
