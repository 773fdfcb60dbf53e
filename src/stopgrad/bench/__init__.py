"""Speed on this machine: parts and whole runs, compared with the hardware's limits and with other libraries."""
