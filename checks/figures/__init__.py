"""From numbers to SVG."""
