"""Context mixing in integers: adaptive experts around the model's prediction, bit by bit."""
