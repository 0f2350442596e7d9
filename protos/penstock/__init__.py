"""The contract: the messages in a descriptor pool of Penstock's own, the names in them, and the tensor codec."""
