"""What members of the family compute, in numpy; imported by their `fit` and `embedder`."""
