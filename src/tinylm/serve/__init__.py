"""A committee behind HTTP: `tinylm serve`."""
