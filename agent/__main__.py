"""``python -m agent`` is `outstation`."""

from agent.cli import main

if __name__ == "__main__":
    main()
