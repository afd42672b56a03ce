"""The bench: time and memory of the analyses, against what this machine can do."""
