"""Methods of federated architecture search, behind one interface: whom a round asks for what, and when it is done."""
