"""FedPareto: federated training of once-for-all supernets, and search of the subnet that fits a device.

The packages lie beside this folder; here they are links, so that a checkout runs, and is typed, as it is.
"""
