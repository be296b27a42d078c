"""The networks of starts: imported by `network` and `load` alone, so that listing starts needs no torch."""
