"""Grade submissions on a Dask cluster. Entry point: `executor.Cluster`."""
