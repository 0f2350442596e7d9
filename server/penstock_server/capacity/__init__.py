"""How many requests a second a server can answer within its objectives, and how much of that is used."""
