"""`penstock drift-check`: what drift alarms would have said of rows that are there already, and how soon they would say it."""
