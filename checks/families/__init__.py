"""Every causal type of the installed library as a tiny random model, and what becomes of it when it is measured."""
