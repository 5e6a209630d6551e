"""Outstation: the agent that reads a board's devices and reports them to an MQTT broker."""

__version__ = "0.1.0"
