"""HDF5 files: their structure by h5py, their values from where they lie."""
