"""The store on disk: where files are, who may write them, how far a run has come, and its results."""
