"""One reader a library: `read(model)` makes the Forest of a fitted model, or refuses."""
