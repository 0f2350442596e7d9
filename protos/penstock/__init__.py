"""The contract: the Open Inference Protocol's messages in a descriptor pool of Penstock's own, and its tensor codec."""
