"""Methods compared on the same images, clients and compute: a study, its trials, and what came out."""
