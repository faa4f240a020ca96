"""Methods compared on the same images, clients and compute, and with what one would get without them."""
