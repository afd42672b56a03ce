"""The reference model that ships with the project, and the script that trains it."""
