"""What benchmarks/results_pages.py makes the pages of results from."""
