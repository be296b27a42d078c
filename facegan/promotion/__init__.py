"""Promoted recognizers: the registry in a working directory, the gates that decide which is current, and its use."""
