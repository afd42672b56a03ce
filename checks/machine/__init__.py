"""What a result was made on: manifest, environment, threads, progress."""
