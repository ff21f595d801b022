"""Plain types shared by every package: no trio, no HTTP, no database and no clock in here."""
