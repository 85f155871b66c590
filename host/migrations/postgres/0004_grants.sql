-- What the modules of a revision may reach: a line for each, `DIGEST http=ORIGIN`.
ALTER TABLE deployment ADD COLUMN grants TEXT NOT NULL DEFAULT '';
