"""The analyses run on a checkpoint: their order, record keys, shards and costs."""
