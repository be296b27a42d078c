"""The commands beside `facegan run` and its kin, by what they are for."""
