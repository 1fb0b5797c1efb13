"""What `make bench` and `make demo` run: measurements, and a simulated class."""
