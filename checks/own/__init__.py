"""Claims of your own: stated in a file before the measurement, judged as the built-in ones are."""
