"""The machine and the host that MASUKA runs on: what it is, whether it is well."""
