"""Reports of a run: pages for people, JUnit XML and Markdown for machines."""
