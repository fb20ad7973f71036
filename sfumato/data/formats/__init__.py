"""One file a format of images on disk; `recognized.py` lists them. `listing.py` above says what each gives."""
