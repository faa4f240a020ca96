"""Networks as torch modules, and the weights of supernets and subnets."""
