"""MetaWorld's tasks (arXiv 1910.10897, its version 3) as one environment that says in words what is to be done."""
