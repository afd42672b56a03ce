"""Judge: gates over records, and the page that shows them."""
