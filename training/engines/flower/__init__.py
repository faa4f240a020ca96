"""Federation of real clients over Flower: the messages on the network, the server's link, and the work on a node."""
