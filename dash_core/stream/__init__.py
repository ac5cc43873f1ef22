"""A stream of arrivals: what arrived, which side it is on, and whether a new model may be released."""
