"""Who a caller is, and what it may do: the same rules on the gRPC port and on the HTTP port."""
