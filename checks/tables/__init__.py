"""Numbers of a result as tables of one row per head, layer, pair of layers, rotary plane, write or claim."""
