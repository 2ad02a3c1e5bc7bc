"""HEAD: the version of the database schema that this code needs."""

HEAD = "0003"
