"""A finished model -> what others use: exported files, a page and an endpoint on this computer."""
