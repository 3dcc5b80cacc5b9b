"""Several runs beside each other: what differs in their experiments, whether they are on one scale, how far apart they are."""
