"""Built-in drivers: one file a driver, registered by entry points in the group ``outstation.drivers``."""
