"""Other models made from this one: shuffled, initialised, planted."""
