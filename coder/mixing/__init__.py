"""Context mixing in integers: adaptive experts around the model's prediction, one binary decision at a time."""
