"""One recorder, one journal on disk, three sinks: a run is recorded first and delivered when it can be."""
