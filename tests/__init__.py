"""A package, so that no other package of this name (torch-fidelity brings one) is taken for it in child processes."""
