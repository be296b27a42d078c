"""Promoted recognizers: the registry in a working directory, what decides who is current, and how one is used."""
