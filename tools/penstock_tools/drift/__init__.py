"""`penstock drift`: asks a server for its drift and shows it in a terminal or as a page; reports by Evidently."""
