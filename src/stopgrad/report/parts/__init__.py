"""The parts of pages: curves, maps, neighbours, tables, figures."""
