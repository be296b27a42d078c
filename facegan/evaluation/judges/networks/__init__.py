"""The networks of judges: imported by `load` alone, so that listing judges needs no torch."""
