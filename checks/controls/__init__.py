"""What a claim's answer is worth: twins, surrogates, coordinates, noise."""
