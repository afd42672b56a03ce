"""Which analyses are run, in which order, under which key, in which shards, at what cost."""
