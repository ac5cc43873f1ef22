"""The store on disk: where things lie, who may touch them, how far a run is, and what it left."""
