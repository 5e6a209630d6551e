"""The figures of the README, each by one command: `python -m bench.idle` and so on, `make bench` for all of them."""
