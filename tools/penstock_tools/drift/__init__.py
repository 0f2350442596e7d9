"""`penstock drift`: fetches a server's drift report and shows it in a terminal or as a page; reports by Evidently."""
