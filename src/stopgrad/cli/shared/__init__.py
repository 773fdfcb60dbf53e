"""What the commands share: flags, console and summaries."""
