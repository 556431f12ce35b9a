"""Reports over runs."""
def write(workdirs, out, *, title): return out
